"""Immutability by the rules of Azure's version-level policies.

`Locked` can only be lengthened, `Unlocked` can also be shortened and removed by whoever has the right. With versions an
overwrite of a locked blob succeeds and makes a new version, and a delete may hide it: so locks are looked at before.
Source: Microsoft's "Version-level WORM policies for immutable blob data".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from azure.storage.blob import BlobImmutabilityPolicyMode, ImmutabilityPolicy

from dr_pipelines.errors import AccessDenied, ObjectLocked, StoreError
from dr_pipelines.storage.azure_container import AzureContainer, Head

LockMode = Literal["compliance", "governance"]
LOCKED, UNLOCKED = BlobImmutabilityPolicyMode.LOCKED.value, BlobImmutabilityPolicyMode.UNLOCKED.value
_MODES = {"compliance": LOCKED, "governance": UNLOCKED}


class AzureLocks:
    """The locks of one container; `mode` is the plan's, None where it wants none."""

    def __init__(self, container: AzureContainer, mode: LockMode | None) -> None:
        self._container = container
        self._mode = None if mode is None else _MODES[mode]

    def may_lock(self) -> bool:
        """What may not be asked is not promised."""
        try:
            return self.able()
        except AccessDenied:
            return False

    def able(self) -> bool:
        """The container is asked: without version-level immutability Azure refuses policies. Raises `AccessDenied`."""
        return self._mode is not None and bool(self._container.properties.immutable_storage_with_versioning_enabled)

    def policy(self, until: datetime) -> ImmutabilityPolicy:
        """To be sent with an upload."""
        return ImmutabilityPolicy(expiry_time=until, policy_mode=self._mode)

    def ensure(self, key: str, until: datetime, *, mode: str | None = None) -> None:
        """Locked so long and so firmly, read back; what was locked longer or more firmly stays so. A service may take
        an upload's policy as `Unlocked` whatever was asked, or not look at it. Raises `StoreError`."""
        head = self._container.head(key)
        wanted = LOCKED if LOCKED in (mode or self._mode, mode_of(head)) else UNLOCKED
        latest = max(until, until_of(head) or until)
        if _is_locked(head, latest, wanted):
            return
        if wanted == LOCKED and mode_of(head) is None:  # only a policy that is there can be made a firm one
            self._set(key, latest, UNLOCKED)
        self._set(key, latest, wanted)
        if not _is_locked(self._container.head(key), latest, wanted):
            raise StoreError(
                f"{self._container.name} took {key} without the lock it was put with",
                hint="give this credential the right to set immutability policies, on a container that has them.",
            )

    def _set(self, key: str, until: datetime, mode: str) -> None:
        with self._container.told(key):
            self._container.blob(key).set_immutability_policy(ImmutabilityPolicy(expiry_time=until, policy_mode=mode))


def whole_second(until: datetime) -> datetime:
    """Policies keep whole seconds; a lock is never shorter than asked for."""
    return (until + timedelta(seconds=1, microseconds=-1)).astimezone(UTC).replace(microsecond=0)


def until_of(head: Head) -> datetime | None:
    found: datetime | None = head.properties.immutability_policy.expiry_time
    return found


def mode_of(head: Head) -> str | None:
    found = head.properties.immutability_policy.policy_mode
    return None if not found else str(getattr(found, "value", found)).capitalize()


def refuse_if_held(name: str, key: str, head: Head) -> None:
    """Raises `ObjectLocked`."""
    until = until_of(head)
    if head.properties.has_legal_hold:
        raise ObjectLocked(f"{name}: {key} is locked by a legal hold", hint="wait until it is lifted.")
    if until is not None and head.is_before(until):
        raise ObjectLocked(f"{name}: {key} is locked until {until:%Y-%m-%d %H:%M} UTC", hint="wait until then.")


def _is_locked(head: Head, until: datetime, mode: str) -> bool:
    held = until_of(head)
    return held is not None and held >= until and mode_of(head) in (LOCKED, mode)
