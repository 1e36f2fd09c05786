"""What a run proves itself with: a token and S3 keys of its own, which are kept nowhere.

Both are made of the run's name and the vault's key, and are looked at by making them again. So there is
nothing to read in the database or in a copy of it, nothing to clear away, and a start that is repeated
after a crash gives the run what it had. They are worth nothing once the run has ended.
"""

from __future__ import annotations

import hmac

from digitalhub_python_control.clientenv import Credentials
from digitalhub_python_control.store.store import RunRecord, Store
from digitalhub_runtime_python.states import ENDED

PREFIX = "run."


def credentials_of(run: RunRecord, store: Store) -> Credentials:
    """A run's own."""
    name = f"{PREFIX}{run.project}.{run.id}"
    # A run of the same name that is made after this one was deleted is another one.
    mark = f"{name}\n{run.seq}\n{run.entity['metadata']['created']}"
    return Credentials(
        token=f"{name}.{store.sign(f'token {mark}')}",
        s3_access_key=name,
        s3_secret_key=store.sign(f"s3 {mark}"),
    )


def run_of_token(token: str, store: Store) -> RunRecord | None:
    """The run whose token it is; None where it is nobody's, or the run has ended."""
    run = living(token.rpartition(".")[0], store)
    if run is None:
        return None
    return run if _equal(token, credentials_of(run, store).token) else None


def living(name: str, store: Store) -> RunRecord | None:
    """The run that an S3 access key names, if it has not ended; that says nothing of who sends the key."""
    if not name.startswith(PREFIX):
        return None
    project, _, identity = name[len(PREFIX) :].partition(".")
    run = store.get_run_record(project, identity)
    # A local run has no token: it is its user's own process.
    return None if run is None or run.target is None or run.state in ENDED else run


def _equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())
