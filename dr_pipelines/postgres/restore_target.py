"""The places that a restore writes to: nobody else uses them, and what a killed restore left there goes away."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from dr_pipelines.commands import Command, Runner
from dr_pipelines.errors import HostTooSmall, RestoreError, TargetInUse

_MARK = ".dr_restoring"
"""In a tablespace's new directory while it is written: the target whose restore writes there."""


def beside(target_dir: Path, ending: str) -> Path:
    """`/data/shop` and `partial` give `/data/shop.partial`."""
    return target_dir.with_name(f"{target_dir.name}.{ending}")


def refuse_used(path: Path, *, may_be_mount: bool = False) -> None:
    """Raises `TargetInUse` unless `path` is an empty directory or not there, and no part of a server."""
    if path.exists() and not path.is_dir():
        raise TargetInUse(f"{path} is not a directory", hint="name a directory that does not exist yet.")
    if path.is_mount() and not may_be_mount:
        raise TargetInUse(f"{path} is a mount point", hint="name a directory below it that does not exist yet.")
    server = next((parent for parent in path.absolute().parents if (parent / "PG_VERSION").exists()), None)
    if server is not None:
        raise TargetInUse(
            f"{path} lies in {server}, which is a server's data directory",
            hint="name a directory outside of it; nothing was touched.",
        )
    if path.exists() and any(path.iterdir()):
        running = " and a server may run in it" if (path / "postmaster.pid").exists() else ""
        raise TargetInUse(
            f"{path} is not empty{running}", hint="name a directory that does not exist yet; nothing was touched."
        )


def require_room(needed: Mapping[Path, int]) -> None:
    """Raises `HostTooSmall` when a disk has less free than the bytes `needed` in the directories on it, which need
    not be there yet."""
    by_disk: dict[int, tuple[Path, int]] = {}
    for place, size in needed.items():
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        disk = there.stat().st_dev
        by_disk[disk] = there, size + by_disk.get(disk, (there, 0))[1]
    for there, size in by_disk.values():
        free = shutil.disk_usage(there).free
        if size > free:
            raise HostTooSmall(
                f"{there} has {free >> 20} MiB free, and the restore needs {size >> 20} MiB",
                hint="make room, or restore to another disk.",
            )


def require_entry(folder: Path, user: str | None, runner: Runner) -> None:
    """The account that a server runs as gets to what lies in `folder`. Raises `RestoreError` naming what bars it."""
    if user is None:
        return
    for place in (*reversed(folder.absolute().parents), folder.absolute()):
        if runner.run(Command(["test", "-x", str(place)], user=user), check=False).returncode != 0:
            raise RestoreError(
                f"the account {user!r}, which the server runs as, cannot enter {place}",
                hint=f"let it (`chmod o+x {place}`), or name a place that it can enter.",
            )


def clear_leftovers(folder: Path) -> None:
    """What killed restores left in `folder`; those that run are left alone."""
    for left in folder.glob("*.partial"):
        with contextlib.suppress(TargetInUse), alone(left.with_suffix("")):
            pass


@contextmanager
def alone(target_dir: Path) -> Iterator[None]:
    """One restore at a time into a target; what a killed one left is removed."""
    path = beside(target_dir, "lock")
    try:
        target_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise RestoreError(
            f"cannot write below {target_dir.parent}: {error.strerror}", hint="name another directory with --to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TargetInUse(f"another restore writes to {target_dir}", hint="wait for it, or name another.") from None
        try:
            for ending in ("partial", "wal", "saved"):
                _remove_leftover(beside(target_dir, ending))
            yield
        finally:
            path.unlink(missing_ok=True)


def claim_tablespace(location: Path, target_dir: Path) -> None:
    """Make `location` ready to be written for `target_dir`; what a killed restore of the same target left there goes.
    Raises `TargetInUse`."""
    mark = location / _MARK
    if mark.is_file() and mark.read_text() == str(target_dir):
        clear_tablespace(location)
    refuse_used(location, may_be_mount=True)  # a tablespace is often a disk of its own, and nothing is renamed
    location.mkdir(parents=True, mode=0o700, exist_ok=True)
    mark.write_text(str(target_dir))


def release_tablespace(location: Path) -> None:
    """It is whole and belongs to the restored server."""
    (location / _MARK).unlink(missing_ok=True)


def clear_tablespace(location: Path) -> None:
    """Remove what a restore wrote; the mark goes last, so that this can be done again."""
    for path in location.iterdir():
        if path.name != _MARK:
            shutil.rmtree(path, ignore_errors=True)
    release_tablespace(location)
    with contextlib.suppress(OSError):  # a mount point stays, empty
        location.rmdir()


def _remove_leftover(folder: Path) -> None:
    """Of a restore that was killed; its server, if it outlived it, is ended first."""
    pid_file = folder / "postmaster.pid"
    if pid_file.exists() and (line := pid_file.read_text().split("\n")[0]).isdigit():
        # Who may not look at a process did not start it: its number was given to somebody else since.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            _end_server(psutil.Process(int(line)), folder)
    shutil.rmtree(folder, ignore_errors=True)


def _end_server(process: psutil.Process, folder: Path) -> None:
    """Raises `TargetInUse` when it cannot be ended. A process of that number that runs elsewhere is left alone."""
    try:
        if Path(process.cwd()) == folder.resolve():
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
    except psutil.TimeoutExpired as error:
        raise TargetInUse(
            f"process {process.pid}, the server of a killed restore, still runs in {folder}",
            hint=f"end it with `kill -QUIT {process.pid}` as its account or root, and restore again.",
        ) from error
