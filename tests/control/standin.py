"""Stands in for the runtime: appends a line to a file and then does what BEHAVIOUR says."""

import os
import signal
import sys
import time

behaviour, _, value = os.environ.get("BEHAVIOUR", "sleep 0").partition(" ")
with open(os.environ["EXECUTIONS"], "a") as file:
    file.write(os.environ["RUN_ID"] + "\n")
print("begins", os.environ["RUN_ID"], flush=True)

if behaviour == "sleep":
    time.sleep(float(value))
elif behaviour == "exit":
    sys.exit(int(value))
elif behaviour == "die":
    os.kill(os.getpid(), int(value))
    time.sleep(30)
elif behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ignores SIGTERM", flush=True)
    time.sleep(60)
elif behaviour == "fail-until":  # fails as long as it was executed fewer than so many times
    with open(os.environ["EXECUTIONS"]) as file:
        times = file.read().split().count(os.environ["RUN_ID"])
    sys.exit(0 if times >= int(value) else 7)
elif behaviour == "not-loaded":  # as long as it was executed fewer than so many times
    with open(os.environ["EXECUTIONS"]) as file:
        times = file.read().split().count(os.environ["RUN_ID"])
    if times < int(value):
        with open(os.environ["DHPY_TERMINATION_LOG"], "w") as file:
            file.write("The platform cannot be reached. [platform/unreachable]\n")
        sys.exit(14)
elif behaviour == "not-reported":
    with open(os.environ["DHPY_TERMINATION_LOG"], "w") as file:
        file.write("The report was not delivered. [platform/report]\n")
    sys.exit(14)
elif behaviour == "until":  # a file is there: as one that waits for a run that it has started
    while not os.path.exists(value):
        time.sleep(0.02)
elif behaviour == "touch":
    open(value, "w").close()
elif behaviour == "show":
    text = os.environ.get(value)
    print(value, "=", text)
    print(value, "reversed =", text and text[::-1])  # the log hides secrets
elif behaviour == "leave-child":
    if os.fork() == 0:
        time.sleep(60)
    print("done")
else:
    sys.exit(f"unknown behaviour {behaviour!r}")
