"""What a restore reads, where that lies, and whether the bytes are at hand.

Of WAL only what lies in cold storage is looked at: what is listed nowhere else must be recalled. Asking for it does not
belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.postgres.restore_plan import Candidate, WalSpan, lineage
from dr_pipelines.postgres.restore_source import Source
from dr_pipelines.repository.recall import Needed, availabilities
from dr_pipelines.repository.wal_listing import ColdSegment
from dr_pipelines.storage.base import Availability

_CLOCKS = timedelta(hours=1)
"""So far the clocks of the server and of the backup host may lie apart."""


class Needs:
    """What one way of restoring needs. `terms` by tier."""

    def __init__(
        self, source: Source, candidate: Candidate, terms: Mapping[str, StorageTerms], *, all_wal: bool = False
    ) -> None:
        self._source, self._candidate, self._terms, self._all_wal = source, candidate, terms, all_wal

    def terms(self, tier: str) -> StorageTerms:
        return self._terms.get(tier, StorageTerms())

    def backup(self) -> list[Needed]:
        """The objects of the chain."""
        tier, store = self._source.repository.tier, self._source.repository.store
        return [
            Needed(tier, store, stored.key, stored.size, self._source.catalog.class_of(backup, stored.key))
            for backup in self._candidate.chain
            for stored in backup.restored_from
        ]

    def wal(self) -> list[Needed]:
        """Segments that may be offline wherever they are, each where it is read first."""
        system, first = self._source.system, self._source.repository.tier
        tiers = sorted(system.on, key=lambda tier: tier != first)
        offline = {tier: self._may_be_offline(tier) for tier in tiers}
        found: dict[WalSegment, Needed] = {}
        for tier in tiers:
            for segment, cold in offline[tier].items():
                elsewhere = (other for other in tiers if segment not in offline[other])
                if segment not in found and not any(_covers(system.on[other], segment) for other in elsewhere):
                    found[segment] = Needed(tier, system.stores[tier], cold.key, cold.size, cold.storage_class)
        return [found[segment] for segment in sorted(found)]

    def to_ask_about(self) -> list[Needed]:
        """Those whose storage class does not promise that they are at hand."""
        backup = [found for found in self.backup() if self.terms(found.tier).may_be_offline(found.storage_class)]
        return backup + self.wal()

    def all_at_hand(self) -> bool:
        """Asks no further than to the first that is not."""
        return all(found is Availability.ONLINE for _, found in availabilities(self.to_ask_about()))

    def cost(self, recalled: Sequence[Needed], *, urgent: bool) -> float:
        """Of reading all of it. WAL that is not cold is counted with its size in the server."""
        wal = self.wal()
        objects = self.backup() + wal
        keys = {found.key for found in recalled}
        cost = sum(self._cost_of(found, urgent=urgent and found.key in keys) for found in objects)
        warm = max(0, self._candidate.wal_bytes - sum(found.size for found in wal))
        return cost + self.terms(self._source.repository.tier).cost_of_reading(warm, None)

    def _cost_of(self, found: Needed, *, urgent: bool) -> float:
        return self.terms(found.tier).cost_of_reading(found.size, found.storage_class, urgent=urgent)

    def _may_be_offline(self, tier: str) -> dict[WalSegment, ColdSegment]:
        """The tier's segments on the way of the recovery. One of several objects of a segment may be at hand."""
        path = lineage(self._source.plan.timeline, self._source.system.histories)
        until, terms = self._until(), self.terms(tier)
        return {
            cold.segment: cold
            for cold in self._source.system.cold.get(tier, ())
            if terms.may_be_offline(cold.storage_class) and self._is_replayed(cold.segment, path, until)
        }

    def _is_replayed(self, segment: WalSegment, path: Mapping[Timeline, Lsn | None], until: Lsn | None) -> bool:
        start = self._candidate
        if segment.timeline not in path or segment.timeline < start.chain[-1].timeline:
            return False
        left = path[segment.timeline]
        ends = [end for end in (left, until) if end is not None]
        return segment.end > start.wal_start and all(segment.start <= end for end in ends)

    def _until(self) -> Lsn | None:
        """Replay goes no further, as far as that can be foreseen; None: to the end of the WAL."""
        target, newest = self._source.plan.target, self._candidate.chain[-1]
        if self._all_wal:
            return None
        if isinstance(target.value, Lsn):
            return target.value
        if target.kind == "immediate":
            return newest.stop_lsn
        if isinstance(target.value, datetime):
            # What was written while a later backup was taken comes after the target, or is it.
            after = target.value + _CLOCKS
            later = (b.stop_lsn for b in self._source.backups if b.started_at > after and b.stop_lsn > newest.stop_lsn)
            return min(later, default=None)
        return None


def _covers(spans: Iterable[WalSpan], segment: WalSegment) -> bool:
    return any(
        span.timeline == segment.timeline and span.start <= segment.start and segment.end <= span.end for span in spans
    )
