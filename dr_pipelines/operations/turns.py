"""Snapshots and polls of a file set take turns on this host.

Each goes on from what the one before left. A poll takes over what it does not look at: beside a snapshot it would lay
over it what that has just seen to be another.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from dr_pipelines.errors import Busy, UsageError
from dr_pipelines.progress import Progress
from dr_pipelines.site import Site


@contextmanager
def turn(site: Site, file_set: str, progress: Progress, *, wait: bool = True) -> Iterator[None]:
    """Whoever is killed has ended its turn. Raises `Busy` where it is another's and nobody is to `wait`, `UsageError`
    where the plan's state_dir cannot be written."""
    with _lock(site, file_set) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = f"a snapshot or a poll of {file_set} is under way on this host"
            if not wait:
                raise Busy(said, hint="run the same command when it has ended.") from None
            progress.note(f"{said}: it is waited for")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock(site: Site, file_set: str) -> IO[bytes]:
    path = site.state_dir / "files" / file_set / "turn.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        hint = "whoever takes snapshots must be able to write to the plan's state_dir."
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint=hint) from error
