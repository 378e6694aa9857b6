"""The files below a directory of this host, each read as one version of itself. Loaded by processes that do nothing
else, so it needs little."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.errors import CommandFailed, UsageError
from dr_pipelines.files.source import FileChanged, FileUnreadable, FileVanished, Seen, Wanted

_HOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not blocking: what was a file may be a pipe by now."""
_SETTLED = 0.1
"""Seconds for which a write may go on, or others follow it, without a newer time: a file has that at which a write
began, by a clock that ticks every few milliseconds. What was written to so shortly before is read twice: where both
are equal, it was that between the two."""
_PAUSE = 0.02
"""Seconds between the two: whoever was put off in the middle of a write goes on with it."""
_PIECE = 1024 * 1024


class Tree:
    """Opens files by their path below `root`. It can be sent to another process, however names are encoded there."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._within = _folder(self._root)
        self._is: tuple[int, int] | None = None
        self._clock = SystemClock()

    def begin(self) -> None:
        """From now on the root is what is there now. Raises `UsageError` when there is none: an empty tree would pass
        for a loss of everything."""
        self._is, self._within = self._now(), _folder(self._root)
        if self._is is None:
            raise self._gone("is no directory here")

    def require_root(self) -> None:
        """Raises `UsageError` when it is another one than it was, or none, say because it is not mounted any more."""
        if self._now() != self._is:
            raise self._gone("went away, or became another one, while it was read")

    def open(self, wanted: Wanted) -> TreeFile:
        """Raises `UsageError` too, as `require_root`: all of a tree that went away would pass for removed."""
        try:
            descriptor = os.open(self._root + b"/" + wanted.path, _HOW)
        except FileNotFoundError:
            if self._is is not None:
                self.require_root()
            raise FileVanished("it was removed while the snapshot was taken") from None
        except OSError as error:
            require_descriptors(error)
            raise FileUnreadable(reason(error)) from error
        self._require_within(descriptor)
        return TreeFile(descriptor, self._clock)

    def _require_within(self, descriptor: int) -> None:
        """The last part of a path is not followed where it is a link. Those above it are, should one have become a link
        since the scan: whoever may write into the tree must not have read what only this process may."""
        try:
            real = os.readlink(b"/proc/self/fd/%d" % descriptor)  # noqa: PTH115  bytes
        except OSError:  # no /proc here
            return
        if not real.startswith(self._within):
            os.close(descriptor)
            raise FileUnreadable("a directory above it became a link out of the source")

    def _now(self) -> tuple[int, int] | None:
        try:
            seen = os.stat(self._root)  # noqa: PTH116  bytes
        except OSError:
            return None
        return (seen.st_dev, seen.st_ino) if stat.S_ISDIR(seen.st_mode) else None

    def _gone(self, how: str) -> UsageError:
        return UsageError(
            f"the source {os.fsdecode(self._root)} {how}", hint="is it mounted? The plan names it (file_storage)."
        )


class TreeFile:
    """One that is open. What was written to a moment ago is read twice."""

    def __init__(self, descriptor: int, clock: Clock) -> None:
        self._descriptor, self._clock = descriptor, clock
        self._before = self._stat()
        self.size = self._before.st_size
        if not stat.S_ISREG(self._before.st_mode):
            self.close()
            raise FileVanished("it is no file any more")
        settled = self._before.st_ctime < clock.now().timestamp() - _SETTLED
        self._digest = None if settled else hashlib.sha256()

    def read_into(self, target: memoryview) -> int:
        try:
            done = os.readv(self._descriptor, [target])
            while done < len(target) and (count := os.readv(self._descriptor, [target[done:]])):
                done += count
        except OSError as error:
            raise FileUnreadable(reason(error)) from error
        if self._digest is not None:
            self._digest.update(target[:done])
        return done

    def finish(self) -> Seen:
        same = self._digest is None or self._digest.digest() == self._read_once_more()
        now = self._stat()
        if not same or _stamps(now) != _stamps(self._before):
            raise FileChanged("it was written to while it was read")
        return Seen(
            {"size": now.st_size, "mtime_ns": now.st_mtime_ns, "ctime_ns": now.st_ctime_ns, "inode": now.st_ino}
        )

    def _read_once_more(self) -> bytes:
        self._clock.wait(_PAUSE)
        digest, at, buffer = hashlib.sha256(), 0, memoryview(bytearray(min(_PIECE, self.size)))
        try:
            while at < self.size and (count := os.preadv(self._descriptor, [buffer[: self.size - at]], at)):
                digest.update(buffer[:count])
                at += count
        except OSError as error:
            raise FileUnreadable(reason(error)) from error
        return digest.digest()

    def _stat(self) -> os.stat_result:
        try:
            return os.fstat(self._descriptor)
        except OSError as error:  # a file system over the network lost it
            self.close()
            raise FileUnreadable(reason(error)) from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _folder(path: bytes) -> bytes:
    """As the beginning of the paths below it."""
    return os.path.realpath(path).rstrip(b"/") + b"/"


def require_descriptors(error: OSError) -> None:
    """Raises `CommandFailed` when this host lets no more files be opened. That is no fault of the file: marked as
    unreadable it would be missing in the snapshot."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise CommandFailed(
            f"this host lets no more files be opened: {reason(error)}", hint="raise the limit: see `ulimit -n`."
        ) from error


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _stamps(seen: os.stat_result) -> tuple[int, int, int]:
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
