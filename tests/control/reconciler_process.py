"""A process with nothing but a store and a reconciler, to be killed: `… HOME MAX_JOBS [DATABASE_URL]`."""

import sys
import time
from pathlib import Path

from reconciling import reconciler_of, settings_in, store_of

shared = {"database_url": sys.argv[3]} if len(sys.argv) > 3 else {}
settings = settings_in(Path(sys.argv[1]), max_jobs=int(sys.argv[2]), **shared)
store = store_of(settings)
reconciler = reconciler_of(store, settings)
told = {(*run.key, run.target) for run in store.unsettled_runs()}  # before the test makes more
reconciler.start()
print("started", flush=True)
while True:
    # The test writes into the database by itself: somebody must tell of that, once, as the API would.
    # PostgreSQL does.
    time.sleep(600 if shared else 0.05)
    wanted = {(*run.key, run.target) for run in store.unsettled_runs()}
    for project, run, _ in wanted - told:
        reconciler.tell(project, run)
    told = wanted
