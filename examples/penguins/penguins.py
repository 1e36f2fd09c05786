"""Palmer penguins: clean a real data set in one run, summarise it in a second, see a third one fail.

Run it with the SDK's settings in the environment: `dhpy exec -- python penguins.py penguins.csv`.
"""

import sys

import digitalhub as dh

PYTHON = f"PYTHON3_{sys.version_info[1]}"

project = dh.get_or_create_project("penguins")

print("--- log the data set as a dataitem")
dataitem = project.log_dataitem(name="penguins", kind="table", source=sys.argv[1])
print(dataitem.key)

print("--- a decorated function as a remote job, with inputs and parameters")
clean = project.new_function(
    name="clean",
    kind="python",
    code_src="functions.py",
    handler="clean",
    python_version=PYTHON,
)
run = clean.run("job", inputs={"penguins": dataitem.key}, parameters={"min_mass": 3000}, wait=True)
print("state        ", run.status.state)
print("rows dropped ", run.result("rows_dropped"))
print(run.output("clean").as_df().head(3).to_string())

print("--- its output is the input of a second run")
summarise = project.new_function(
    name="summarise",
    kind="python",
    code_src="functions.py",
    handler="summarise",
    python_version=PYTHON,
)
second = summarise.run("job", inputs={"clean": run.output("clean").key}, wait=True)
print(second.output("by_species").as_df().to_string(index=False))
print("heaviest     ", second.result("heaviest"))

print("--- a function as a service")
guess = project.new_function(
    name="guess",
    kind="python",
    code_src="functions.py",
    handler="guess",
    init_function="remember",
    python_version=PYTHON,
)
means = second.output("by_species").as_df().set_index("species")["body_mass_g"].to_dict()
service = guess.run("serve", init_parameters={"masses": means}, wait=True)
print("listens on   ", service.status.service["url"])
for mass in (3500, 5200):
    print(f"{mass} g       ", service.invoke(json={"body_mass_g": mass}).json())
refused = service.invoke(json={"body_mass_g": "heavy"})
print("bad request  ", refused.status_code, refused.json()["detail"])
service.stop()

print("--- a run that fails says where and why")
broken = project.new_function(
    name="broken",
    kind="python",
    code_src="functions.py",
    handler="broken",
    python_version=PYTHON,
)
third = broken.run("job", inputs={"penguins": dataitem.key}, wait=True)
print("state        ", third.status.state)
print("message      ", third.status.message)

print("--- the logs of the first run")
for entry in run.logs():
    print(entry["content"] if isinstance(entry, dict) else entry.text)

assert (run.status.state, second.status.state, third.status.state) == (
    "COMPLETED",
    "COMPLETED",
    "ERROR",
)
