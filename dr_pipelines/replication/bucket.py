"""Is a bucket set up as the plan says? Pure: what it says of itself against what is wanted.

A thief who cannot delete lets the bucket do it: a lifecycle rule that nobody planned is drift (as in the Codefinger
attacks of 2025).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from dr_pipelines.plan.stores import BucketExpectations
from dr_pipelines.storage.base import BucketSettings, LifecycleRule


@dataclass(frozen=True)
class Wanted:
    """What the plan wants of a bucket: its `settings`, whether it locks, below which `prefix` the repository lies, and
    for how long retention's expiry can be undone."""

    settings: BucketExpectations
    locks: bool
    prefix: str
    grace: timedelta


@dataclass(frozen=True)
class Drift:
    """`wrong`: what is not as planned; `facts`: what an operator should know."""

    wrong: tuple[str, ...]
    facts: tuple[str, ...]


def drift(found: BucketSettings, wanted: Wanted) -> Drift:
    return Drift((*_settings(found, wanted), *_rules(found, wanted)), tuple(_facts(found, wanted)))


def _settings(found: BucketSettings, wanted: Wanted) -> Iterator[str]:
    plan = wanted.settings
    if wanted.locks and not found.object_lock:
        yield "object lock is not enabled, and the plan locks what is put here"
    if plan.versioning is not None and found.versioning != plan.versioning:
        yield f"versioning is {_word(found.versioning)}, not {_word(plan.versioning)}"
    if plan.encryption is not None and (found.encryption or "").lower() != plan.encryption.lower():
        yield f"encryption is {found.encryption or 'none'}, not {plan.encryption}"
    if plan.default_lock is not None and found.default_lock_days != plan.default_lock:
        days = "none" if found.default_lock_days is None else f"{found.default_lock_days} days"
        yield f"the default lock is {days}, not {plan.default_lock} days"


def _rules(found: BucketSettings, wanted: Wanted) -> Iterator[str]:
    for rule in _affecting(found, wanted.prefix):
        planned = rule.name in wanted.settings.rules
        if rule.expires_days is not None and not planned:
            yield f"the lifecycle rule {rule.name!r} removes objects after {rule.expires_days} days"
        for days, storage_class in () if planned else rule.moves:
            yield f"the lifecycle rule {rule.name!r} moves objects to {storage_class} after {days} days"
        old = rule.old_versions_expire_days
        if found.versioning and old is not None and timedelta(days=old) < wanted.grace:
            yield (
                f"the lifecycle rule {rule.name!r} removes old versions after {old} days, sooner than what was expired "
                f"can be undone ({wanted.grace.total_seconds() / 86400:g} days)"
            )


def _facts(found: BucketSettings, wanted: Wanted) -> Iterator[str]:
    rules = [*_affecting(found, wanted.prefix)]
    if found.versioning and not any(rule.old_versions_expire_days is not None for rule in rules):
        yield "no rule removes old versions: what is deleted is kept and charged for ever"
    if found.lifecycle is None:
        yield "it tells of no lifecycle rules"


def _affecting(found: BucketSettings, prefix: str) -> Iterator[LifecycleRule]:
    """Enabled, and of keys that are the repository's or may be."""
    for rule in found.lifecycle or ():
        if rule.enabled and (prefix.startswith(rule.prefix) or rule.prefix.startswith(prefix)):
            yield rule


def _word(setting: bool | None) -> str:
    return {None: "not told", True: "on", False: "off"}[setting]
