"""Which backups, or snapshots of files, are due on a tier. Pure: two catalogs, the plan's policy and a time in, an
answer out.

`everything`: each usable one of the source. `monthly`: of each calendar month (UTC) that has ended the newest that
is counted by itself (a full, a snapshot that is no poll), for cold storage charges months for what is superseded after
days; only to a tier that holds none at all is the newest of a month that has not ended sent, for a tier with nothing to
restore is no tier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic

from dr_pipelines.repository.catalog import chain_of
from dr_pipelines.repository.labels import LabelCatalog, Labelled, M
from dr_pipelines.repository.marks import Marks

Keeps = Callable[[Collection[M]], Collection[str]]
"""Of these, in any order, were they on the tier: the labels that its retention would keep."""

_OF_BYTES = frozenset({"replicate", "scrub", "verify", "digests"})
"""Proofs that say whether the stored bytes are right; another may fail for what is in the database."""


@dataclass(frozen=True)
class Due(Generic[M]):
    """What belongs on the tier and is not there, since when, and why it is not sent all the same."""

    backup: M
    since: datetime
    held: str | None = None


def keep_all(backups: Collection[Labelled]) -> Collection[str]:
    return [backup.label for backup in backups]


def due_backups(
    send: str, source: LabelCatalog[M], target: LabelCatalog[M], *, now: datetime, keeps: Keeps[M] = keep_all
) -> tuple[Due[M], ...]:
    """In the order in which they are sent: a parent before what builds on it. What the tier's retention let go, or
    would let go, is not due."""
    wanted = dict(_wanted(send, source, target, now))
    there = {backup.label for backup in target.manifests if not target.marks.get(backup.label, Marks()).missing}
    expired = {gone.manifest.label for gone in target.expired}
    union = {backup.label: backup for backup in (*target.manifests, *_of(source, wanted))}
    kept = ({*keeps(union.values())} | {label for label in wanted if _is_kept(source, label, now)}) - expired
    by_label = {backup.label: backup for backup in source.manifests}
    needed = {
        link.label: max(link.finished_at, wanted.get(link.label, link.finished_at))
        for backup in _of(source, wanted)
        if backup.label in kept
        for link in chain_of(backup, by_label)
    }
    return tuple(
        Due(backup, needed[backup.label], _held(source, chain_of(backup, by_label)))
        for backup in _of(source, needed)
        if backup.label not in there
    )


def _is_kept(source: LabelCatalog[Labelled], label: str, now: datetime) -> bool:
    """By a person, and then on every tier."""
    return any(keep.holds(now) for keep in source.marks.get(label, Marks()).keeps.values())


def _of(source: LabelCatalog[M], labels: Collection[str]) -> list[M]:
    return [backup for backup in source.manifests if backup.label in labels]


def _wanted(
    send: str, source: LabelCatalog[Labelled], target: LabelCatalog[Labelled], now: datetime
) -> Iterator[tuple[str, datetime]]:
    """Labels, and since when each is wanted."""
    if send == "everything":
        yield from ((backup.label, backup.finished_at) for backup in source.usable)
    elif send == "monthly":
        yield from _monthly(_fulls(source.usable), _fulls(target.usable), now)


def _monthly(fulls: Sequence[Labelled], there: Sequence[Labelled], now: datetime) -> Iterator[tuple[str, datetime]]:
    newest = {_month(full): full for full in sorted(fulls, key=lambda full: full.started_at)}
    held = {_month(full): full.started_at for full in sorted(there, key=lambda full: full.started_at)}
    ended = [full for month, full in newest.items() if month < _month_of(now)]
    for full in ended:
        # A newer one of the month that is there already serves, should the source have lost it.
        if _month(full) not in held or held[_month(full)] < full.started_at:
            yield full.label, _end_of(full)
    if newest and not ended and not there:
        first = max(newest.values(), key=lambda full: full.started_at)
        yield first.label, first.finished_at


def _fulls(backups: Iterable[Labelled]) -> list[Labelled]:
    """What is counted by itself."""
    return [backup for backup in backups if backup.counted_with is None]


def _month(backup: Labelled) -> tuple[int, int]:
    return _month_of(backup.started_at)


def _month_of(at: datetime) -> tuple[int, int]:
    utc = at.astimezone(UTC)
    return utc.year, utc.month


def _end_of(backup: Labelled) -> datetime:
    year, month = _month(backup)
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _held(source: LabelCatalog[Labelled], chain: Iterable[Labelled]) -> str | None:
    """A copy of damaged bytes is none: what was found damaged waits until it is found whole."""
    for link in chain:
        proofs = [proof for proof in source.marks.get(link.label, Marks()).proofs if proof.kind in _OF_BYTES]
        newest = max(proofs, key=lambda proof: proof.at, default=None)
        if newest is not None and newest.verdict == "fail":
            return f"{link.label} was found damaged on {newest.at:%Y-%m-%d %H:%M} UTC ({newest.kind})"
    return None
