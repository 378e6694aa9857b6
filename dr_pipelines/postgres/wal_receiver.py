"""The receiver as a process: what it said when it ended, and those that a killed stream left behind.

What does not belong here: when one is started.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

_REMOVED = ("has already been removed", "not in this server's history")
_GRACE = 10.0  # seconds


@dataclass(frozen=True)
class Ending:
    """Why a receiver ended. `wal_removed`: the server has not what comes next, so trying again cannot help."""

    reason: str
    wal_removed: bool = False


def ending(said: str, exit_code: int | None) -> Ending:
    """From what it said on stderr."""
    lines = [line for line in said.splitlines() if line.strip()]
    removed = next((line for line in lines if any(sign in line for sign in _REMOVED)), None)
    if removed is not None:
        return Ending(removed, wal_removed=True)
    return Ending(lines[-1] if lines else f"the receiver ended with exit code {exit_code}")


def end_orphans(spool: Path) -> None:
    """A receiver whose stream was killed goes on receiving, holds the slot, and nobody ships: end it. Found by the
    folder in its arguments, as the killed stream may not have put its pid down."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            command = process.cmdline()
            if "pg_receivewal" in "".join(command[:1]) and any(Path(part).parent == spool for part in command[1:]):
                _end(process)


def _end(process: psutil.Process) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_GRACE)
