"""Do the locks hold that the plan promises? Read back of objects that are there, and tried on a canary.

A lock is put for as long as a backup is promised from its put on (`Placement.lock_for`): until then it must be there.
What is kept longer is locked longer by retention, which knows what it keeps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ObjectNotFound
from dr_pipelines.repository import layout
from dr_pipelines.repository.labels import Labelled, list_homes
from dr_pipelines.repository.layout import Role
from dr_pipelines.repository.owners import Owner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, LockAttempt, ObjectInfo, ObjectStore, read_all

LOCK_IS_IN_FORCE = "lock_is_in_force"
LOCKS_HOLD = "locks_hold"
SAMPLE = 64
"""So many objects are asked about beside the newest backup's: each is a call. Others come the next day."""
CANARY_LOCK = timedelta(days=1)
_SLACK = timedelta(hours=1)
"""A lock counts from when a put began, an object's age from when it ended, each by its own clock."""
_THREADS = 8
_NAMED = 10


@dataclass(frozen=True)
class _Seen:
    """An object with the end of its lock; `needed` is the least that the plan promises."""

    key: str
    until: datetime | None
    needed: datetime

    @property
    def is_locked(self) -> bool:
        return self.until is not None and self.until >= self.needed - _SLACK


def lock_is_in_force(
    repository: Repository,
    owner: Owner[Labelled],
    lock_for: timedelta,
    *,
    now: datetime,
    backup: Labelled | None = None,
) -> CheckResult:
    """Every object of a backup or a snapshot; what it shares with earlier ones must be locked still, however old
    it is. Without one, of the newest, and a sample of the others and of WAL, which is another one every day. Passes
    only when there were objects whose lock is promised until now or longer; or, of one backup, when the time that it
    was promised for is over."""
    store = repository.store
    if not store.capabilities.object_lock:
        return failed(
            LOCK_IS_IN_FORCE,
            f"{store.name} cannot lock, and the plan asks for it",
            hint="make the bucket anew with object lock, or take `lock` out of this store in the plan.",
        )
    try:
        listed = [*store.list(owner.prefix)] if backup is None else _of(store, backup)
        promised = _promised(listed, lock_for, now)
        if backup is not None and listed and not promised:
            return _over(backup, lock_for)
        if backup is None:
            chosen = [*_chosen(owner.catalog(store).manifests, promised, now)]
        else:
            chosen = [*promised, *(info for info in listed if _is_shared(info, backup) and info not in promised)]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="locks") as pool:
            looks = pool.map(lambda info: _look(store, info, lock_for, now), chosen)
            seen = [look for look in looks if look is not None]
    except DrError as error:
        return not_proven(LOCK_IS_IN_FORCE, f"{repository.tier} could not be read: {error.message}", hint=error.hint)
    return _judged(repository.tier, seen, lock_for)


def _over(backup: Labelled, lock_for: timedelta) -> CheckResult:
    days = lock_for.total_seconds() / 86400
    summary = f"the {days:g} days for which {backup.label} was to be locked are over"
    return passed(LOCK_IS_IN_FORCE, summary, label=backup.label, applies=False)


def _judged(tier: str, seen: Sequence[_Seen], lock_for: timedelta) -> CheckResult:
    loose = [look for look in seen if not look.is_locked]
    days = f"{lock_for.total_seconds() / 86400:g} days from its put"
    details = {"objects": len(seen), "loose": [look.key for look in loose[:_NAMED]], "lock_days": lock_for.days}
    if not seen:
        summary = f"nothing on {tier} is younger than the {days} for which it is locked: no lock was seen"
        return not_proven(LOCK_IS_IN_FORCE, summary, **details)
    if loose:
        first = loose[0]
        end = "not locked" if first.until is None else f"locked until {first.until:%Y-%m-%d %H:%M} UTC only"
        return failed(
            LOCK_IS_IN_FORCE,
            f"{len(loose)} of {len(seen)} objects on {tier} are not locked for {days}: {first.key} is {end}",
            hint="were they put before `lock` was planned? `dr retention apply` lengthens the locks of what is kept.",
            **details,
        )
    return passed(LOCK_IS_IN_FORCE, f"all {len(seen)} objects that were asked about are locked for {days}", **details)


def _promised(listed: Iterable[ObjectInfo], lock_for: timedelta, now: datetime) -> list[ObjectInfo]:
    """Those that are to be locked still."""
    return [info for info in listed if layout.role_of(info.key) is not Role.NOTE and info.modified + lock_for > now]


def _of(store: ObjectStore, backup: Labelled) -> list[ObjectInfo]:
    named = {backup.layout.manifest, *(stored.key for stored in backup.objects)}
    return [info for key, info in list_homes(store, backup).items() if key in named]


def _is_shared(info: ObjectInfo, backup: Labelled) -> bool:
    """It may be older than it was to be locked for, and is needed as long as what shares it."""
    return not info.key.startswith(backup.layout.prefix)


def _chosen(manifests: Sequence[Labelled], promised: Sequence[ObjectInfo], now: datetime) -> Iterator[ObjectInfo]:
    newest = max(manifests, key=lambda backup: backup.finished_at, default=None)
    wanted = {newest.layout.manifest, *(stored.key for stored in newest.objects)} if newest is not None else set()
    day = f"{now:%Y-%m-%d}"
    others = sorted((info for info in promised if info.key not in wanted), key=lambda info: _place(info.key, day))
    return iter([*(info for info in promised if info.key in wanted), *others[:SAMPLE]])


def _place(key: str, day: str) -> str:
    return hashlib.sha256(f"{day} {key}".encode()).hexdigest()


def _look(store: ObjectStore, info: ObjectInfo, lock_for: timedelta, now: datetime) -> _Seen | None:
    """None for what was removed since it was listed."""
    try:
        return _Seen(info.key, store.stat(info.key).retain_until, max(info.modified + lock_for, now))
    except ObjectNotFound:
        return None


def locks_hold(store: ObjectStore, tier: str, *, clock: Clock) -> CheckResult:
    """Puts a locked object and tries to break its lock with the store's own credentials, in every way that its API has.
    Passes only when every try was refused and the bytes are still there. What was tried is put down as evidence; old
    canaries are removed once their lock has ended."""
    if not store.capabilities.object_lock:
        return failed(LOCKS_HOLD, f"{store.name} cannot lock, and the plan asks for it")
    now = clock.now()
    key, song = layout.canary(now, secrets.token_hex(4)), secrets.token_bytes(256)
    try:
        store.put(key, Body.of(song), retain_until=now + CANARY_LOCK)
        tries = [*store.attack(key)]
        alive = _reads(store, key, song)
    except DrError as error:
        return not_proven(LOCKS_HOLD, f"the locks of {tier} could not be tried: {error.message}", hint=error.hint)
    result = _verdict(tier, key, tries, alive=alive)
    told = {"at": now.isoformat(), "verdict": result.verdict.value, "summary": result.summary, **result.details}
    with contextlib.suppress(DrError):
        store.put(layout.evidence("canary", now, secrets.token_hex(8)), Body.of(json.dumps(told, indent=1).encode()))
        _remove_old(store, now)
    return result


def _verdict(tier: str, key: str, tries: Sequence[LockAttempt], *, alive: bool) -> CheckResult:
    broken = [attempt for attempt in tries if not attempt.held]
    details = {
        "canary": key,
        "tries": [{"what": attempt.what, "held": attempt.held, "said": attempt.said} for attempt in tries],
    }
    if broken:
        what = ", ".join(attempt.what for attempt in broken)
        return failed(LOCKS_HOLD, f"locks on {tier} can be broken with its own credentials: {what}", **details)
    if not alive:
        return failed(LOCKS_HOLD, f"the canary on {tier} does not read as it was put: {key}", **details)
    if not tries:
        return not_proven(LOCKS_HOLD, f"nothing was tried on {tier}", **details)
    return passed(LOCKS_HOLD, f"{len(tries)} tries to break a lock on {tier} were refused", **details)


def _reads(store: ObjectStore, key: str, song: bytes) -> bool:
    try:
        return read_all(store, key) == song
    except ObjectNotFound:
        return False


def _remove_old(store: ObjectStore, now: datetime) -> None:
    for info in [*store.list(layout.CANARIES)]:
        at = layout.parse_canary(info.key)
        if at is not None and at + CANARY_LOCK < now - _SLACK:
            with contextlib.suppress(DrError):  # a longer default lock of the bucket: it goes another time
                store.delete(info.key)
