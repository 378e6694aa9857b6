"""A directory tree as a source of files. Links are kept as links and never followed."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import re
import stat
from array import array as packed
from collections.abc import Collection, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import UsageError
from dr_pipelines.files.arrays import binaries, named, of_numpy, to_numpy
from dr_pipelines.files.select import folders_above
from dr_pipelines.files.source import Scan, Wanted
from dr_pipelines.files.table import DIRECTORY, FILE, LINK, SOURCE, with_columns
from dr_pipelines.files.tree import Tree, TreeFile, reason, require_descriptors

_FIELDS = {
    "size": "st_size", "mtime_ns": "st_mtime_ns", "ctime_ns": "st_ctime_ns", "inode": "st_ino", "device": "st_dev",
    "hard_links": "st_nlink", "mode": "st_mode", "uid": "st_uid", "gid": "st_gid",
}  # fmt: skip
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
_KIND, _MODE = 0o170000, 0o7777
_SOME = 4096


class Directory:
    """`exclude` are names, or paths from the root, with `*`, `?` and `[…]`; what is below them is left out too."""

    readers = 2

    def __init__(self, root: Path, exclude: Sequence[str] = ()) -> None:
        self.root, self.tree = root, Tree(root)
        self.description = f"directory {root}"
        self._excluded = _pattern(exclude)

    def scan(self) -> Scan:
        """Raises `UsageError` when the root is not there, or not any more."""
        self.tree.begin()
        walk = _Walk(self._excluded)
        walk.look(os.fsencode(self.root), b"", first=True)
        self.tree.require_root()
        return walk.result()

    def look(self, paths: Collection[bytes]) -> Scan:
        """Nothing is looked at through a link."""
        self.tree.begin()
        walk = _Walk(self._excluded)
        wanted = {part for path in paths for part in (path, *folders_above(path))}
        entered = {b""}
        for path in sorted(wanted):  # directories before what is in them
            above = path.rpartition(b"/")[0]
            if above in entered and walk.note(path, os.fsencode(self.root) + b"/" + path):
                entered.add(path)
        self.tree.require_root()
        return walk.result()

    def open(self, wanted: Wanted) -> TreeFile:
        return self.tree.open(wanted)


class _Walk:
    """Columns of numbers that grow with every entry, not one object each: there may be millions."""

    def __init__(self, excluded: re.Pattern[bytes] | None) -> None:
        self._excluded = excluded
        self._paths: list[bytes] = []
        self._numbers = {name: packed("q") for name in _FIELDS}
        self._newest: list[os.stat_result] = []  # of them, those that are no numbers yet
        self._targets: dict[int, bytes] = {}
        self._gone: list[bytes] = []
        self._unreadable: dict[bytes, str] = {}
        self._special: list[bytes] = []

    def look(self, folder: bytes, below: bytes, *, first: bool = False) -> None:
        """Raises `UsageError` when the root itself cannot be read."""
        pending = [(folder, below)]
        while pending:
            folder, below = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    pending += [*self._entries(entries, below)]
                if len(self._newest) >= _SOME:
                    self._as_numbers()
            except FileNotFoundError:
                self._gone.append(below.rstrip(b"/"))
            except OSError as error:
                require_descriptors(error)
                if first and not below:
                    raise UsageError(
                        f"the source {os.fsdecode(folder)} cannot be read: {reason(error)}",
                        hint="run as a user that may read it.",
                    ) from error
                self._unreadable[below.rstrip(b"/")] = reason(error)

    def _entries(self, entries: Iterator[os.DirEntry[bytes]], below: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Notes each; yields the directories, with their paths. A file, which most of them are, takes no more calls
        than it must: these are most of the time of a snapshot in which nothing changed."""
        paths, newest, excluded = self._paths, self._newest, self._excluded
        for entry in entries:
            path = below + entry.name
            if excluded is not None and self._is_excluded(path):
                continue
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unreadable[path] = reason(error)
                continue
            if seen.st_mode & _KIND == stat.S_IFREG:
                paths.append(path)
                newest.append(seen)
            elif self._add(path, entry.path, seen):
                yield entry.path, path + b"/"

    def note(self, path: bytes, place: bytes) -> bool:
        """What is there, if anything is; whether that is a directory."""
        if self._is_excluded(path):
            return False
        try:
            seen = os.lstat(place)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._unreadable[path] = reason(error)
            return False
        return self._add(path, place, seen)

    def _is_excluded(self, path: bytes) -> bool:
        if self._excluded is None:
            return False
        name = path.rpartition(b"/")[2]
        return self._excluded.fullmatch(path) is not None or self._excluded.fullmatch(name) is not None

    def _add(self, path: bytes, place: bytes, seen: os.stat_result) -> bool:
        kind = seen.st_mode & _KIND
        if kind not in _KINDS:
            self._special.append(path)
            return False
        if kind == stat.S_IFLNK:
            try:
                self._targets[len(self._paths)] = os.readlink(place)  # noqa: PTH115  bytes
            except FileNotFoundError:
                return False
            except OSError as error:
                self._unreadable[path] = reason(error)
                return False
        self._paths.append(path)
        self._newest.append(seen)
        return kind == stat.S_IFDIR

    def _as_numbers(self) -> None:
        for name, column in self._numbers.items():
            column.extend(map(attrgetter(_FIELDS[name]), self._newest))
        self._newest.clear()

    def result(self) -> Scan:
        self._as_numbers()
        rows = self._rows()
        if self._gone:  # directories that vanished since their entries were read
            rows = rows.filter(pc.invert(pc.is_in(rows["path"], value_set=binaries(self._gone))))
        few = b", ".join(self._special[:3]).decode(errors="backslashreplace")
        notes = (f"{len(self._special)} sockets, pipes or devices are left out: {few}",) if self._special else ()
        return Scan(rows, self._unreadable, notes)

    def _rows(self) -> pa.Table:
        """By path. What was collected is given up column by column: all of it twice would be the most that a snapshot
        in which nothing changed has in memory."""
        paths = binaries(self._paths)
        self._paths = []
        order = to_numpy(pc.sort_indices(paths))
        seen = {}
        for name in _FIELDS:
            seen[name] = np.frombuffer(self._numbers.pop(name), dtype=np.int64)[order]
        kinds = seen["mode"] & _KIND
        seen["mode"] &= _MODE
        is_file = kinds == stat.S_IFREG
        seen["size"][~is_file] = 0
        seen["hard_links"][~is_file] = 1
        links = pc.index_in(of_numpy(order), value_set=of_numpy(np.array([*self._targets], dtype=np.int64)))
        return with_columns(
            {
                "path": paths.take(of_numpy(order)),
                "type": named(kinds, _KINDS.get),
                **{name: of_numpy(column) for name, column in seen.items()},
                "user": named(seen["uid"], _user),
                "group": named(seen["gid"], _group),
                "target": binaries([*self._targets.values()]).take(links),
            },
            SOURCE,
        )


def _pattern(exclude: Sequence[str]) -> re.Pattern[bytes] | None:
    if not exclude:
        return None
    return re.compile("|".join(fnmatch.translate(one.strip("/")) for one in exclude).encode())


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
