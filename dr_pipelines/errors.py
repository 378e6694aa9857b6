"""The one tree of errors.

Every error that a person can meet is a `DrError`: what happened and to what (`message`, lowercase, no full
stop), what to do next (`hint`, a sentence that names the next command), how the command line exits
(`exit_code`) and whether trying again can help (`transient`).

What does not belong here: errors of libraries. They are turned into one of these at the door through which
the library is called.
"""

from __future__ import annotations

import errno

from dr_pipelines.lsn import Lsn


class DrError(Exception):
    """Base of all errors of this project."""

    exit_code: int = 1
    transient: bool = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nHINT: {self.hint}"


class UsageError(DrError):
    """The command or call was made with arguments that make no sense together."""

    exit_code = 2


class Busy(UsageError):
    """Another process of this host is at it; once that has ended, this can be done."""

    transient = True


class PlanError(DrError):
    """The DR plan is wrong; the message names the YAML path."""

    exit_code = 3


class SecretMissing(PlanError):
    """The plan refers to a secret that is not there."""


# --- stores -------------------------------------------------------------------------------------------------


class StoreError(DrError):
    """A store refused or failed."""

    exit_code = 10


class StoreUnavailable(StoreError):
    """The store did not answer, or answered that it is busy. Trying again can help."""

    transient = True


class AccessDenied(StoreError):
    """The store knows us and says no, or does not know us."""


class ObjectNotFound(StoreError):
    """Proven absence: the store answered that there is no object under this key."""


class ObjectExists(StoreError):
    """A put with `if_absent` met an object under its key."""


class ObjectChanged(StoreError):
    """The object under this key is not the one that was asked for any more: it was replaced since it was listed."""


class ObjectLocked(StoreError):
    """The object is immutable until its retention ends."""


class ObjectOffline(StoreError):
    """The object's bytes are in an archive class: they must be recalled first, which takes hours."""


class IntegrityError(DrError):
    """Bytes are not what their SHA-256 says. Never restored from."""

    exit_code = 11


# --- repository ---------------------------------------------------------------------------------------------


class RepositoryError(DrError):
    """The repository on a tier is missing, of another format, or contradicts itself."""

    exit_code = 12


class BackupNotFound(RepositoryError):
    """No backup has this label, or none serves what was asked."""


class KeyUnusable(DrError):
    """No identity at hand decrypts this object, or a key is malformed."""

    exit_code = 13


# --- PostgreSQL ---------------------------------------------------------------------------------------------


class ServerError(DrError):
    """The PostgreSQL server refused or failed. `sqlstate` is PostgreSQL's code for it, where it gave one."""

    exit_code = 20
    sqlstate: str | None = None

    @property
    def tells_of_the_host(self) -> bool:
        """Not of data: its machine lacks something (room, memory, an extension's library), or somebody ended the
        question. Source: PostgreSQL manual, "Error Codes"."""
        if self.sqlstate is None or self.sqlstate.startswith(_OF_THE_HOST):
            return True
        # Of one class with a table's file that is gone; the copies that we run speak English.
        return self.sqlstate.startswith("58") and any(words in self.message for words in _NO_LIBRARY)


_OF_THE_HOST = ("08", "53", "57", "55P03")
_NO_LIBRARY = ('could not access file "', "could not load library")


class ServerUnavailable(ServerError):
    """The server does not answer. Trying again can help."""

    transient = True


class ServerMisconfigured(ServerError):
    """The server's settings or the role's rights do not allow what the plan asks."""


class BackupFailed(ServerError):
    """A base backup was started and did not end well. The repository is as before."""

    exit_code = 21


class BackupInterrupted(BackupFailed):
    """The server went away during a base backup. Trying again can help."""

    transient = True


class ChainBroken(BackupFailed):
    """An incremental cannot be taken on top of the newest backup. A full can."""


class CommandFailed(DrError):
    """A program that we ran did not succeed."""

    exit_code = 22


# --- recovery -----------------------------------------------------------------------------------------------


class RestoreError(DrError):
    """A restore was refused or failed; the target directory holds no half-restored server."""

    exit_code = 30


class RecoveryFailed(RestoreError):
    """The restored server itself gave up while it replayed WAL."""


class TargetInUse(RestoreError):
    """The target directory is not empty, or a server runs in it."""


class HostTooSmall(RestoreError):
    """This machine has not the disk or the memory that the restore needs. That says nothing of the backup."""


class TargetUnreachable(RestoreError):
    """The recovery target lies before the oldest backup, after the newest WAL, or in a gap."""


class BeforeConsistency(TargetUnreachable):
    """The target lies before the point where this backup becomes consistent. An earlier backup may serve."""


class WalGap(RestoreError):
    """WAL that is needed is missing between two segments that are there."""


class DamagedWal(RestoreError):
    """WAL that replay needs, up to `until`, is damaged on every tier. A backup that begins there does not need it."""

    exit_code = 11

    def __init__(self, message: str, until: Lsn, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.until = until


class RecallPending(RestoreError):
    """What the restore reads was asked for, and arrives in hours. The same restore succeeds when it is there; to try
    again at once cannot help."""

    exit_code = 31


class WalOffline(RestoreError):
    """WAL that replay came to must be recalled first, and that was not foreseen."""

    exit_code = 31


class NotProven(DrError):
    """A check could not see enough to say pass or fail. Alarms like a failure."""

    exit_code = 40


class CheckFailed(DrError):
    """A check looked and found the promise broken."""

    exit_code = 41


def disk_is_full(error: OSError) -> bool:
    """No room, no quota, or a file larger than it may be: what making room mends."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
