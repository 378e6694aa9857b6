"""Files written into an empty directory that is the restore's alone: so no path can lead out of it but through a link
of the snapshot, and links are made when everything else is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from dr_pipelines.disk import start_writeback
from dr_pipelines.errors import HostTooSmall, RestoreError, disk_is_full
from dr_pipelines.files.restore_plan import Failure, Restoring
from dr_pipelines.files.restore_target import NotRestored, Pieces, Row, rows_in

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOPELESS = (errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
_WRITE_SIZE = 1024 * 1024
"""Larger writes make Linux look for long runs of free pages, which takes several times as long."""
_EARLY = 256 * 1024
"""From this size on a file is sent to the disk at once."""


class DirectoryTarget:
    """A `Target` below `root`. Owners are set when we are root; modes without them are those of new files."""

    writers = 1

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root) + b"/"
        self._sets_owner = os.geteuid() == 0
        mask = os.umask(0)
        os.umask(mask)
        self._file_mode, self._folder_mode = 0o666 & ~mask, 0o777 & ~mask
        # Mode bits that a new file need not have because it was asked for.
        self._withheld = 0o7777 if _has_default_acl(self._root) else 0o7000 | mask
        self._owner_of_new: tuple[int, int] | None = None

    def put(self, row: Row, content: memoryview) -> None:
        with _told(row.path):
            mode = self._file_mode if row.mode is None else row.mode
            file = os.open(self._root + row.path, _NEW, mode & 0o777)
            try:
                _write(file, content)
                self._dress_new(file, row, mode)
            finally:
                os.close(file)

    def _dress_new(self, file: int, row: Row, mode: int) -> None:
        """As `_dress`, without the calls that would change nothing: of small files they take much of the time."""
        if self._owner_of_new is None:
            seen = os.fstat(file)
            self._owner_of_new = seen.st_uid, seen.st_gid
        other = self._sets_owner and row.uid is not None and (row.uid, row.gid) != self._owner_of_new
        if other or mode & self._withheld:
            self._dress(file, row, mode)
        elif row.mtime_ns is not None:
            os.utime(file, ns=(row.mtime_ns, row.mtime_ns))

    def put_large(self, rows: Sequence[Row], pieces: Pieces) -> None:
        files: list[int] = []
        try:
            with _told(rows[0].path):
                for row in rows:
                    files.append(os.open(self._root + row.path, _NEW, 0o600))
                for piece in pieces():
                    for file in files:
                        _write(file, piece)
                for file, row in zip(files, rows, strict=True):
                    self._dress(file, row, self._file_mode)
        except BaseException:
            for _, row in zip(files, rows, strict=False):
                with suppress(OSError):
                    os.unlink(self._root + row.path)  # noqa: PTH108  bytes
            raise
        finally:
            for file in files:
                os.close(file)

    def make_folders(self, plan: Restoring) -> list[Failure]:
        """All of them, open to us alone until `dress_folders`."""
        failures = []
        for path in plan.folders:
            try:
                with _told(path):
                    os.mkdir(self._root + path, 0o700)  # noqa: PTH102  bytes
            except NotRestored as error:
                failures.append(Failure(path, error.message))
        return failures

    def put_rest(self, plan: Restoring, failed: Iterable[bytes]) -> list[Failure]:
        """What needs no pack: empty files, hard links of those that did not fail, last symbolic links."""
        failures = [*self._each(rows_in(plan.empty_files), lambda row: self.put(row, memoryview(b"")))]
        lost = set(failed)
        for path, first in plan.twins.items():
            if first in lost:
                failures.append(Failure(path, f"it is a hard link of {os.fsdecode(first)}, which was not restored"))
                continue
            try:
                with _told(path):
                    os.link(self._root + first, self._root + path, follow_symlinks=False)
            except NotRestored as error:
                failures.append(Failure(path, error.message))
        targets = dict(zip(plan.links["path"].to_pylist(), plan.links["target"].to_pylist(), strict=True))
        return [*failures, *self._each(rows_in(plan.links), lambda row: self._link(row, targets[row.path]))]

    def _link(self, row: Row, target: bytes | None) -> None:
        path = self._root + row.path
        with _told(row.path):
            if not target:
                raise NotRestored("the snapshot does not say where the link leads")
            os.symlink(target, path)  # noqa: PTH211  bytes
            if self._sets_owner and row.uid is not None and row.gid is not None:
                os.chown(path, row.uid, row.gid, follow_symlinks=False)
            if row.mtime_ns is not None:
                os.utime(path, ns=(row.mtime_ns, row.mtime_ns), follow_symlinks=False)

    def _each(self, rows: Iterable[Row], put: Callable[[Row], None]) -> Iterator[Failure]:
        for row in rows:
            try:
                put(row)
            except NotRestored as error:
                yield Failure(row.path, error.message)

    def dress_folders(self, directories: pa.Table, folders: Sequence[bytes], root: int) -> list[Failure]:
        """Modes, owners and times of `folders` below the open directory `root`, deepest first: what is made in a
        directory changes its time."""
        rows = {row.path: row for row in rows_in(directories)}
        failures = []
        for path in sorted(folders, reverse=True):
            row = rows.get(path, Row(path, 0, *[None] * 8))
            try:
                with _told(path), opened_below(root, path) as folder:
                    self._dress(folder, row, self._folder_mode)
            except NotRestored as error:
                failures.append(Failure(path, error.message))
        return failures

    def _dress(self, descriptor: int, row: Row, usual_mode: int) -> None:
        # An owner's change takes set-user-ID away, a write changes the time: so in this order.
        if self._sets_owner and row.uid is not None and row.gid is not None:
            os.fchown(descriptor, row.uid, row.gid)
        os.fchmod(descriptor, usual_mode if row.mode is None else row.mode)
        if row.mtime_ns is not None:
            os.utime(descriptor, ns=(row.mtime_ns, row.mtime_ns))


def _has_default_acl(folder: bytes) -> bool:
    """Whether what is made in it gets rights that its maker does not ask for."""
    try:
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    except OSError:  # none, or no such thing on this file system
        return False


@contextmanager
def opened_below(root: int, path: bytes) -> Iterator[int]:
    """A directory below an open one, by parts of which none is a link. Raises `OSError`."""
    folder = os.open(b".", _FOLDER, dir_fd=root)
    try:
        for part in path.split(b"/") if path else ():
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _write(file: int, content: memoryview) -> None:
    size = len(content)
    while len(content):
        content = content[os.write(file, content[:_WRITE_SIZE]) :]
    if size > _EARLY:
        start_writeback(file, 0, 0)


@contextmanager
def _told(path: bytes) -> Iterator[None]:
    """Raises `NotRestored` for what is the path's own fault, and `HostTooSmall` or `RestoreError` for the rest."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise HostTooSmall(
                "the disk of the target is full", hint="make room or restore to another disk; nothing was left behind."
            ) from error
        if error.errno in _HOPELESS:
            raise RestoreError(f"cannot write {os.fsdecode(path)!r}: {error.strerror}") from error
        raise NotRestored(f"cannot be made here: {(error.strerror or str(error)).lower()}") from error
