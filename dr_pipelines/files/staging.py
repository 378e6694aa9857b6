"""A directory that a restore writes to before anything of its target is touched: beside the target, on the same file
system, its own user's alone. What a killed restore left is removed by the next one into the same target."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dr_pipelines.errors import HostTooSmall, RestoreError

_NONCE = r"\.partial-[0-9a-f]{8}"


@contextmanager
def staging_for(target: Path, size: int) -> Iterator[Path]:
    """Where `size` bytes are written to; gone afterwards, unless it was renamed. Raises `HostTooSmall`,
    `RestoreError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # What is mounted cannot be renamed over, and beside it is another disk.
        folder, name = (target, "") if target.is_mount() else (target.parent, target.name)
        _remove_leftovers(folder, name)
        _require_room(folder, size)
        path, lock = _make(folder, name)
    except OSError as error:
        raise RestoreError(
            f"cannot write below {target.parent}: {error.strerror}", hint="name another directory."
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def is_staging_of(target: Path, entry: Path) -> bool:
    """Whether `entry` of a mounted `target` is of a restore."""
    return entry.parent == target and re.fullmatch(_NONCE, entry.name) is not None


def _make(folder: Path, name: str) -> tuple[Path, int]:
    """New, and locked for as long as its descriptor is open: so others see whether its restore is alive."""
    while True:
        path = folder / f"{name}.partial-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        try:
            return path, _locked(path)
        except OSError:  # who looked for leftovers was faster than our lock
            continue


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink == 0 or not path.exists():
            raise FileNotFoundError
    except BaseException:
        os.close(lock)
        raise
    return lock


def _remove_leftovers(folder: Path, name: str) -> None:
    ours = re.compile(re.escape(name) + _NONCE)
    for left in [Path(entry.path) for entry in os.scandir(folder) if ours.fullmatch(entry.name)]:
        with suppress(OSError):
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise HostTooSmall(
            f"{folder} has {free >> 20} MiB free, and the restore needs {size >> 20} MiB",
            hint="make room, restore to another disk, or only a part with --path.",
        )
