"""A directory of this machine as a store. A put has returned only when file and directory are on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG

from dr_pipelines.disk import sync
from dr_pipelines.errors import AccessDenied, IntegrityError, ObjectExists, ObjectNotFound, StoreError, disk_is_full
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo, Plain
from dr_pipelines.storage.keys import checked

_PIECE = 4 * 1024 * 1024
_WRITE_SIZE = 1024 * 1024  # larger ones take longer: the page cache looks for long runs of free pages
_UNFINISHED = ".unfinished-"
_STALE = 24 * 3600.0
_ATTEMPTS = 100


class LocalStore(Plain):
    """Objects are files below `root`; an unfinished put is a hidden file that no listing shows. What a killed process
    left of one is removed by the first put into its folder, once it is a day old."""

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = root
        self._swept: set[Path] = set()
        self.name = name or str(root)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, confirms_digest=True)

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self.refuse(retain_until, storage_class)
        path = self._path(key)
        if "/" in key:  # only the description of a repository, which is put first, may make the folder
            self._require_root()
        with _told(self.name, key):
            unfinished = self._write(path, body)
            try:
                self._move(unfinished, path, body, if_absent=if_absent)
            finally:
                unfinished.unlink(missing_ok=True)
            sync(path.parent)
        return self.stat(key)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.stat(key)
        with _told(self.name, key):
            file = self._path(key).open("rb")
        return self._pieces(file, key, offset, length)

    def stat(self, key: str) -> ObjectInfo:
        self._require_root()
        with _told(self.name, key):
            found = self._path(key).stat()
            if not S_ISREG(found.st_mode):
                raise FileNotFoundError  # a folder of keys is no object
            return _info(key, found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._require_root()
        with _told(self.name, prefix):
            found = sorted(self._walk(prefix), key=attrgetter("key"))
        self._require_root()
        return iter(found)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _told(self.name, key), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
            sync(path.parent)  # a manifest is gone for good before what it names goes
            self._remove_empty(path.parent)

    def _require_root(self) -> None:
        """A disk that is not mounted must not look like an empty store: absence has to be proven."""
        if not self.root.is_dir():
            raise StoreError(
                f"{self.name}: there is no folder {self.root}", hint="mount the disk, or run `dr repository init`."
            )

    def _make_folder(self, folder: Path) -> None:
        """Each new folder is on disk before anything is in it."""
        if folder.is_dir():
            return
        if folder != self.root:
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, parents=folder == self.root)
        sync(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Every listing would look into them. A put that needs one makes it again."""
        with suppress(OSError):  # something is in it
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def _begin(self, folder: Path) -> tuple[int, str]:
        """A hidden file, open. A folder may go as long as nothing is in it: whoever deletes removes those."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                self._make_folder(folder)
                return tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
            except (FileNotFoundError, FileExistsError):  # it went while it was made, or since
                if not left:
                    raise
        raise AssertionError

    def _sweep(self, folder: Path, *, now: float) -> None:
        """`now` by the clock of the disk, which need not be this machine's."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        for left in folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):  # its writer ended just now, or another sweeps too
                if left.stat().st_mtime < now - _STALE:
                    left.unlink()

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _write(self, path: Path, body: Body) -> Path:
        descriptor, name = self._begin(path.parent)
        try:
            digest = hashlib.sha256()
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                self._sweep(path.parent, now=os.fstat(descriptor).st_mtime)
                for chunk in body.chunks:
                    digest.update(chunk)
                    _write_all(file.fileno(), memoryview(chunk))
                os.fsync(file.fileno())
            if digest.hexdigest() != body.sha256:
                raise IntegrityError(f"{self.name}: what was to be written under {path.name} is not what it says")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)

    def _move(self, unfinished: Path, path: Path, body: Body, *, if_absent: bool) -> None:
        if not if_absent:
            unfinished.replace(path)
            return
        try:
            os.link(unfinished, path)
        except FileExistsError:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == body.sha256
            if not same:
                raise ObjectExists(f"{self.name}: {path.relative_to(self.root)} is there with other content") from None

    def _pieces(self, file, key: str, offset: int, length: int | None) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
        left = length
        with file, _told(self.name, key):
            file.seek(offset)
            while left is None or left > 0:
                piece = file.read(_PIECE if left is None else min(_PIECE, left))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """What is removed meanwhile is not there."""
        folders = [prefix[: prefix.rfind("/") + 1]]
        while folders:
            below = folders.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / below) as entries:
                for entry in entries:
                    key = below + entry.name
                    if entry.is_dir():
                        if _may_match(f"{key}/", prefix) and not entry.is_symlink():
                            folders.append(f"{key}/")
                    elif key.startswith(prefix) and not entry.name.startswith(_UNFINISHED):
                        with suppress(FileNotFoundError):
                            yield _info(key, entry.stat())


def _may_match(folder: str, prefix: str) -> bool:
    return folder.startswith(prefix) or prefix.startswith(folder)


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _write_all(descriptor: int, view: memoryview) -> None:
    view = view.cast("B")
    while len(view):
        view = view[os.write(descriptor, view[:_WRITE_SIZE]) :]


@contextmanager
def _told(store: str, key: str) -> Iterator[None]:
    """Errors of the file system in the words of a store."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectNotFound(f"{store}: there is no {key}") from None
    except PermissionError as error:
        raise AccessDenied(f"{store}: no right to touch {key}", hint="check the owner of the directory.") from error
    except OSError as error:
        if disk_is_full(error):
            raise StoreError(f"{store}: the disk is full", hint="make room, then run the command again.") from error
        raise StoreError(f"{store}: {key}: {error.strerror or error}") from error
