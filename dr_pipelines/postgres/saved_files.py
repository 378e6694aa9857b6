"""A stopped server's files, kept beside it, so that it can be brought back to where it stood.

Only what changed since is copied, in either direction, and where the file system can share blocks (XFS, Btrfs), nothing
is. Hard links would not do: PostgreSQL writes into its files in place, hint bits even into those that no WAL touches.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dr_pipelines.errors import HostTooSmall, disk_is_full

_FICLONE = 0x40049409
"""ioctl_ficlone(2): let a file share another's blocks until one of them is written."""
_CANNOT_SHARE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS)
_MARGIN = 64 << 20  # bytes that stay free


@dataclass(frozen=True)
class _Mark:
    """By which a file is known not to have changed: PostgreSQL writes to it, replaces it or gives its name to another
    one. (Not by the time of its inode, which every start changes by giving the files to the server's account.)"""

    inode: int
    size: int
    modified: int


@dataclass
class _Tree:
    """Paths relative to the data directory; `links` are those of tablespaces, to where they lead."""

    files: dict[str, _Mark] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)


class SavedFiles:
    """Of the server in `data_dir`, which must be stopped whenever something is called; `folder` is made."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self._data_dir, self._folder = data_dir, folder
        self._saved: _Tree | None = None
        self.copied = 0
        """Bytes that were copied so far, both ways."""

    def save(self) -> bool:
        """Keep the files as they are now, in the place of what was kept before. False, with nothing kept, where the
        disk has no room."""
        now = _tree(self._data_dir)
        before = self._saved or _Tree()
        if self._saved is None and not self._has_room(now):
            return False
        self._saved = None
        try:
            for name in sorted(now.folders):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            for name, mark in now.files.items():
                if before.files.get(name) != mark:
                    self._copy(self._data_dir / name, self._folder / name, mark.size)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            if not disk_is_full(error):
                raise
            return False
        for name in before.files.keys() - now.files.keys():
            (self._folder / name).unlink()
        _remove_folders(self._folder, before.folders - now.folders)
        self._saved = now
        return True

    def bring_back(self) -> None:
        """The files as they were kept. Raises `HostTooSmall` when the disk is full."""
        if self._saved is None:
            raise ValueError("nothing was kept")
        try:
            self._bring_back(self._saved, _tree(self._data_dir))
        except OSError as error:
            if not disk_is_full(error):
                raise
            raise HostTooSmall(f"{self._data_dir} is on a disk that became full", hint="make room.") from error

    def _bring_back(self, saved: _Tree, now: _Tree) -> None:
        for name in now.files.keys() - saved.files.keys():
            (self._data_dir / name).unlink()
        _remove_folders(self._data_dir, now.folders - saved.folders - now.links.keys())
        for name in now.links.keys() - saved.links.keys():
            (self._data_dir / name).unlink()
        for name in saved.links.keys() - now.links.keys():
            (self._data_dir / name).symlink_to(saved.links[name])
        for name in sorted(saved.folders - now.folders - saved.links.keys()):
            (self._data_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, mark in saved.files.items():
            if now.files.get(name) != mark:
                self._copy(self._folder / name, self._data_dir / name, mark.size)
                saved.files[name] = _mark(self._data_dir / name)

    def _has_room(self, tree: _Tree) -> bool:
        needed = sum(mark.size for mark in tree.files.values()) + _MARGIN
        return shutil.disk_usage(self._data_dir.parent).free >= needed or self._shares(tree)

    def _shares(self, tree: _Tree) -> bool:
        """Whether the file system lets two files have one content."""
        probe, name = self._data_dir.with_name(f"{self._folder.name}.probe"), max(tree.files)
        try:
            return _share(self._data_dir / name, probe)
        finally:
            probe.unlink(missing_ok=True)

    def _copy(self, source: Path, target: Path, size: int) -> None:
        target.unlink(missing_ok=True)
        if not _share(source, target):
            shutil.copyfile(source, target)
            self.copied += size
        shutil.copystat(source, target)


def _share(source: Path, target: Path) -> bool:
    with source.open("rb") as from_, target.open("wb") as to:
        try:
            fcntl.ioctl(to.fileno(), _FICLONE, from_.fileno())
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                return False
            raise
    return True


def _tree(folder: Path) -> _Tree:
    tree = _Tree()
    for name, entry in _entries(folder, ""):
        if entry.is_symlink():
            tree.links[name] = str(Path(entry.path).readlink())
        if entry.is_dir():
            tree.folders.add(name)
        elif entry.is_file():
            tree.files[name] = _mark(Path(entry.path))
    return tree


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield prefix + entry.name, entry
            if entry.is_dir():  # tablespaces are links, and followed
                yield from _entries(Path(entry.path), f"{prefix}{entry.name}/")


def _mark(path: Path) -> _Mark:
    found = path.stat()
    return _Mark(found.st_ino, found.st_size, found.st_mtime_ns)


def _remove_folders(base: Path, names: set[str]) -> None:
    for name in sorted(names, reverse=True):
        (base / name).rmdir()
