"""From nothing to a service, with a control plane on this machine: `dhpy exec -- python newcomer.py`."""

from __future__ import annotations

import digitalhub as dh

STEPS = 50


def train(rate: float, start: float = 10.0) -> float:
    """How far from its minimum gradient descent on x² ends."""
    x = start
    for _ in range(STEPS):
        x -= rate * 2 * x
    return abs(x)


def predict(rate: float, start: float) -> dict[str, float]:
    return {"start": start, "end": train(rate, start)}


def main() -> None:
    project = dh.get_or_create_project("newcomer")

    # A function of a notebook's cell, or of a file such as this one: it takes along what it needs.
    function = project.new_function(name="train", kind="python", func=train)
    swept = function.sweep({"rate": [n / 40 for n in range(1, 21)]}, name="first")
    print(swept.frame()[["rate", "output_0", "state"]].to_string())
    best = swept.best("output_0", largest=False)
    rate = best.spec.parameters["rate"]
    print(f"best rate: {rate}, run {best.id[:8]}")

    service = project.new_function(name="predict", kind="python", func=predict)
    run = service.run("serve", parameters={"rate": rate}, wait=True)
    try:
        print("answer:", run.invoke(json={"start": 3.0}).json())
    finally:
        run.stop()


if __name__ == "__main__":
    main()
