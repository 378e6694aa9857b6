"""From where a restore was written to into its target: as a whole where there is nothing yet, or else file by file, and
never over what is there unless that was asked for. No step follows a link of the target."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.disk import move_new
from dr_pipelines.errors import RestoreError, TargetInUse
from dr_pipelines.files.arrays import text
from dr_pipelines.files.restore_directory import opened_below
from dr_pipelines.files.restore_plan import Failure
from dr_pipelines.files.select import folders_above
from dr_pipelines.files.staging import is_staging_of
from dr_pipelines.files.table import DIRECTORY, FILE, LINK

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Standing:
    """What the target has of the rows already: `same` as they are, `kept` though they differ, `blocked` because a
    file or link stands where a directory is needed."""

    same: set[bytes] = field(default_factory=set)
    kept: set[bytes] = field(default_factory=set)
    blocked: list[Failure] = field(default_factory=list)

    @property
    def all(self) -> set[bytes]:
        return self.same | self.kept | {failure.path for failure in self.blocked}


def is_free(target: Path) -> bool:
    """Whether all of the restore can become the target in one step. Raises `TargetInUse` when it is no directory."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise TargetInUse(f"{target} is not a directory", hint="name a directory, or one that does not exist yet.")
    if target.is_mount():
        return False
    return not target.exists() or not any(target.iterdir())


def standing(target: Path, rows: pa.Table, *, overwrite: bool) -> Standing:
    """Raises `OSError` when the target cannot be read."""
    found = Standing()
    if not any(not is_staging_of(target, entry) for entry in target.iterdir()):
        return found
    root = os.fsencode(target) + b"/"
    blocked = _blocked(root, rows)
    names = ("path", "type", "size", "mtime_ns", "mode", "uid", "gid", "target", "sha256")
    some = rows.filter(pc.not_equal(rows["type"], text(DIRECTORY))).select(names)
    for batch in some.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            path = row["path"]
            if not blocked.isdisjoint(folders_above(path)):
                found.blocked.append(Failure(path, "the target has a link or a file where a directory is needed"))
                continue
            try:
                seen = os.lstat(root + path)
            except OSError:  # not there, or no name that can be: the writer will tell
                continue
            if _is_same(root + path, seen, row):
                found.same.add(path)
            elif stat.S_ISDIR(seen.st_mode):
                found.blocked.append(Failure(path, "the target has a directory there"))
            elif not overwrite:
                found.kept.add(path)
    for path in rows["path"].filter(pc.equal(rows["type"], text(DIRECTORY))).to_pylist():
        if path in blocked:
            found.blocked.append(Failure(path, "the target has a link or a file there"))
    return found


def place_whole(staged: Path, target: Path) -> None:
    """Raises `TargetInUse` when somebody put something there meanwhile."""
    try:
        if target.exists():
            there = target.stat()
            if os.geteuid() == 0:
                os.chown(staged, there.st_uid, there.st_gid)
            staged.chmod(stat.S_IMODE(there.st_mode))
        os.rename(staged, target)  # noqa: PTH104  over an empty directory, which pathlib's rename does too
    except OSError as error:
        raise TargetInUse(
            f"the restored files cannot become {target}: {error.strerror}", hint="restore again; nothing was touched."
        ) from error


@dataclass
class Placed:
    """`folders` that were made."""

    folders: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def place_each(staged: Path, target: Path, *, overwrite: bool) -> Placed:
    """Each file in one step. Raises `RestoreError` when the target cannot be written to at all."""
    placed = Placed()
    try:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"cannot open {target}: {error.strerror}") from error
    try:
        pending = [b""]
        while pending:
            pending += _place_folder(os.fsencode(staged), root, pending.pop(), placed, overwrite=overwrite)
    finally:
        os.close(root)
    return placed


def _place_folder(staged: bytes, root: int, path: bytes, placed: Placed, *, overwrite: bool) -> Iterator[bytes]:
    """Yields the directories in it that are to be placed next."""
    below = path + b"/" if path else b""
    source = os.open(staged + b"/" + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened_below(root, path) as folder, os.scandir(staged + b"/" + path) as entries:
            for entry in [*entries]:
                inner = below + entry.name
                try:
                    if not entry.is_dir(follow_symlinks=False):
                        _place_file(entry.name, source, folder, overwrite=overwrite)
                    elif _make_folder(entry.name, folder):
                        placed.folders.append(inner)
                        yield inner
                    else:
                        yield inner
                except FileExistsError:
                    placed.kept.append(inner)
                except OSError as error:
                    reason = f"cannot be moved into place: {(error.strerror or '').lower()}"
                    placed.failures.append(Failure(inner, reason))
    except OSError as error:  # the directory is a link or a file by now
        reason = f"its directory cannot be entered: {(error.strerror or '').lower()}"
        placed.failures += [Failure(inner, reason) for inner in _files_below(staged, path)]
    finally:
        os.close(source)


def _place_file(name: bytes, source: int, folder: int, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
    else:
        move_new(name, name, source_dir=source, target_dir=folder)


def _make_folder(name: bytes, folder: int) -> bool:
    """Whether it was not there."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _files_below(staged: bytes, path: bytes) -> Iterator[bytes]:
    start = len(staged) + 1
    for here, _, names in os.walk(staged + b"/" + path):
        for name in names:
            yield (here + b"/" + name)[start:]


def _blocked(root: bytes, rows: pa.Table) -> set[bytes]:
    """Paths of directories where the target has something else."""
    folders = {folder for path in rows["path"].to_pylist() for folder in folders_above(path)}
    folders.update(rows["path"].filter(pc.equal(rows["type"], text(DIRECTORY))).to_pylist())
    found: set[bytes] = set()
    for path in sorted(folders):
        if not found.isdisjoint(folders_above(path)):
            found.add(path)
            continue
        try:
            if not stat.S_ISDIR(os.lstat(root + path).st_mode):
                found.add(path)
        except OSError:
            continue
    return found


def _is_same(path: bytes, seen: os.stat_result, row: dict[str, object]) -> bool:
    if row["type"] == LINK:
        return stat.S_ISLNK(seen.st_mode) and os.readlink(path) == row["target"]  # noqa: PTH115  bytes
    if row["type"] != FILE or not stat.S_ISREG(seen.st_mode) or seen.st_size != row["size"]:
        return False
    owner = (row["uid"], row["gid"]) if os.geteuid() == 0 else (None, None)
    told = (row["mtime_ns"], row["mode"], *owner)
    now = (seen.st_mtime_ns, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid)
    if any(one is not None and one != other for one, other in zip(told, now, strict=True)):
        return False
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == row["sha256"]
    except OSError:
        return False
