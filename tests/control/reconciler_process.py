"""A process with nothing but a store and a reconciler, to be killed: `… HOME MAX_JOBS`."""

import sys
import time
from pathlib import Path

from reconciling import reconciler_of, settings_in, store_of

settings = settings_in(Path(sys.argv[1]), max_jobs=int(sys.argv[2]))
reconciler = reconciler_of(store_of(settings), settings)
reconciler.start()
print("started", flush=True)
time.sleep(600)
