"""The states of a run, the moves between them, and which of them are ends."""

from __future__ import annotations

# The 22 names that both SDKs accept; any other makes them refuse the whole entity.
SDK_STATES = frozenset(
    [
        "BUILT",
        "CANCELLED",
        "COMPLETED",
        "CREATED",
        "CREATING",
        "DELETED",
        "DELETING",
        "ERROR",
        "FSM_ERROR",
        "IDLE",
        "NONE",
        "ONLINE",
        "PENDING",
        "READY",
        "RESUME",
        "RUN_ERROR",
        "RUNNING",
        "STOP",
        "STOPPED",
        "SUCCESS",
        "UNKNOWN",
        "UPLOADING",
    ]
)

MERGES = "DHPY-Merges-Status"
"""Header of the embedded control plane's answer to a run's PUT: nothing older is written over that status."""

MERGED = ("results", "outputs")
"""Keys of a status that are merged entry by entry; every other reported key replaces."""

ENDED = frozenset({"COMPLETED", "ERROR", "STOPPED", "CANCELLED", "DELETED"})
"""No move leads out of these; a wait ends here."""

# DigitalHub Core's state machine, with BUILT -> RUNNING added for SDK 0.14's local runs.
MOVES: dict[str, frozenset[str]] = {
    "CREATED": frozenset({"BUILT", "READY", "RUNNING", "ERROR", "DELETING"}),
    "BUILT": frozenset({"READY", "RUNNING", "ERROR", "STOP", "STOPPED", "DELETING"}),
    "READY": frozenset({"PENDING", "RUNNING", "ERROR", "STOP", "STOPPED", "DELETING"}),
    "PENDING": frozenset({"RUNNING", "COMPLETED", "ERROR", "STOP", "STOPPED", "DELETING"}),
    "RUNNING": frozenset({"COMPLETED", "ERROR", "STOP", "STOPPED", "DELETING"}),
    "STOP": frozenset({"STOPPED", "COMPLETED", "ERROR", "DELETING"}),
    "DELETING": frozenset({"DELETED"}),
}


def may_move(old: str, new: str) -> bool:
    """Whether a run in state `old` may become `new`; staying where it is is always allowed."""
    return old == new or new in MOVES.get(old, frozenset())
