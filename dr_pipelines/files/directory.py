"""A directory tree as a source of files. Links are kept as links and never followed."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import re
import stat
from array import array
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from dr_pipelines.errors import UsageError
from dr_pipelines.files.select import folders_above
from dr_pipelines.files.source import Scan, Wanted
from dr_pipelines.files.table import DIRECTORY, FILE, LINK, SOURCE, in_order, with_columns
from dr_pipelines.files.tree import Tree, TreeFile, reason

_NUMBERS = ("size", "mtime_ns", "ctime_ns", "inode", "device", "hard_links", "mode", "uid", "gid")
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}


class Directory:
    """`exclude` are names, or paths from the root, with `*`, `?` and `[…]`; what is below them is left out too."""

    readers = 2

    def __init__(self, root: Path, exclude: Sequence[str] = ()) -> None:
        self.root = self.tree = root
        self._files = Tree(root)
        self.description = f"directory {root}"
        self._excluded = _pattern(exclude)

    def scan(self) -> Scan:
        """Raises `UsageError` when the root is not there: an empty tree would pass for a loss of everything."""
        self._require_root()
        walk = _Walk(self._excluded)
        walk.look(os.fsencode(self.root), b"", first=True)
        return walk.result()

    def look(self, paths: Collection[bytes]) -> Scan:
        """Nothing is looked at through a link."""
        self._require_root()
        walk = _Walk(self._excluded)
        wanted = {part for path in paths for part in (path, *folders_above(path))}
        entered = {b""}
        for path in sorted(wanted):  # directories before what is in them
            above = path.rpartition(b"/")[0]
            if above in entered and walk.note(path, os.fsencode(self.root) + b"/" + path):
                entered.add(path)
        return walk.result()

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise UsageError(
                f"the source {self.root} is no directory here", hint="is it mounted? The plan names it (file_storage)."
            )

    def open(self, wanted: Wanted) -> TreeFile:
        return self._files.open(wanted)


class _Walk:
    """Columns that grow with every entry, not one object each: there may be millions."""

    def __init__(self, excluded: re.Pattern[bytes] | None) -> None:
        self._excluded = excluded
        self._paths: list[bytes] = []
        self._kinds: list[str] = []
        self._targets: list[bytes | None] = []
        self._numbers = {name: array("q") for name in _NUMBERS}
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
            except FileNotFoundError:
                self._forget(below)
            except OSError as error:
                if first and not below:
                    raise UsageError(
                        f"the source {os.fsdecode(folder)} cannot be read: {reason(error)}",
                        hint="run as a user that may read it.",
                    ) from error
                self._unreadable[below.rstrip(b"/")] = reason(error)

    def _entries(self, entries: Iterator[os.DirEntry[bytes]], below: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Notes each; yields the directories, with their paths."""
        for entry in entries:
            path = below + entry.name
            if self.note(path, entry.path):
                yield entry.path, path + b"/"

    def note(self, path: bytes, place: bytes) -> bool:
        """What is there, if anything is; whether that is a directory."""
        if self._excluded is not None:
            name = path.rpartition(b"/")[2]
            if self._excluded.fullmatch(path) or self._excluded.fullmatch(name):
                return False
        try:
            seen = os.lstat(place)
            kind = stat.S_IFMT(seen.st_mode)
            target = os.readlink(place) if kind == stat.S_IFLNK else None  # noqa: PTH115  bytes
        except FileNotFoundError:
            return False
        except OSError as error:
            self._unreadable[path] = reason(error)
            return False
        if kind not in _KINDS:
            self._special.append(path)
            return False
        self._paths.append(path)
        self._kinds.append(_KINDS[kind])
        self._targets.append(target)
        is_file = kind == stat.S_IFREG
        for column, value in zip(
            self._numbers.values(),
            (
                seen.st_size if is_file else 0, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_dev,
                seen.st_nlink if is_file else 1, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid,
            ),
            strict=True,
        ):  # fmt: skip
            column.append(value)
        return kind == stat.S_IFDIR

    def _forget(self, below: bytes) -> None:
        """A directory that vanished since its entry was read."""
        path = below.rstrip(b"/")
        if path in self._paths:
            place = self._paths.index(path)
            del self._paths[place], self._kinds[place], self._targets[place]
            for column in self._numbers.values():
                del column[place]

    def result(self) -> Scan:
        uids, gids = self._numbers["uid"], self._numbers["gid"]
        rows = with_columns(
            {
                "path": self._paths,
                "type": self._kinds,
                **self._numbers,
                "user": [*map(_user, uids)],
                "group": [*map(_group, gids)],
                "target": self._targets,
            },
            SOURCE,
        )
        few = b", ".join(self._special[:3]).decode(errors="backslashreplace")
        notes = (f"{len(self._special)} sockets, pipes or devices are left out: {few}",) if self._special else ()
        return Scan(in_order(rows), self._unreadable, notes)


def _pattern(exclude: Sequence[str]) -> re.Pattern[bytes] | None:
    if not exclude:
        return None
    return re.compile("|".join(fnmatch.translate(one.strip("/")) for one in exclude).encode())


@cache
def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@cache
def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
