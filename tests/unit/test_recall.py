"""What a restore must recall, what that takes and costs; asking for it, and waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import bin_dir
from dr_pipelines.errors import AccessDenied, RecallPending, StoreError, StoreUnavailable
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.postgres.restore_needs import Needs
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_preview import RestorePreview, preview
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import find_sources
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupLayout
from dr_pipelines.repository.manifest import Archive, BackupManifest
from dr_pipelines.repository.recall import Offline, bring_back, find_offline
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Availability, ObjectInfo
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest, put_backup, stored_object

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOUR = timedelta(hours=1)
SIZE = 1 << 20
REQUEST = RestoreRequest("shop", Path("/nowhere/at/all"))
PACKS = 3
BYTE = 1e9
"""A price of 1 a byte: a cost is then a number of bytes."""


def azure(**prices: Any) -> StorageTerms:
    return StorageTerms(AzureStorePlan(type="azure", account_url="https://a.example", container="cold", prices=prices))


def aws(**prices: Any) -> StorageTerms:
    return StorageTerms(S3StorePlan(type="s3", profile="aws", bucket="cold", prices=prices))


class Tier:
    """A full of three packs (750 MB before they were packed) and WAL of segments 1 to 4, in storage classes."""

    def __init__(
        self, name: str, bulk: str | None, wal: str | None = None, *, store: MemoryStore | None = None
    ) -> None:
        self.clock = FixedClock(NOW)
        self.store = store or MemoryStore(
            name, self.clock, classes=("Cool", "GLACIER", "Archive"), offline=("GLACIER", "Archive"), latency=15 * HOUR
        )
        self.repository = Repository(self.store, Codec(1), name)
        self.repository.initialise()
        self.full = self._put_full()
        for number in range(1, 5):
            segment = WalSegment(Timeline(1), number, SIZE)
            self.repository.wal("shop", "1", SIZE).put_segment(segment, bytes([number]) * SIZE)
        for info in self.store.list():
            to = bulk if "/packs/" in info.key else wal if "/0000000" in info.key else None
            if to is not None:
                self.store.set_class(info.key, to)

    def _put_full(self) -> BackupManifest:
        label = "20261120T000000Z-full"
        keys = BackupLayout("shop", label)
        packs = tuple(stored_object(keys.pack(number, ".zst")) for number in range(PACKS))
        made = manifest(
            label, segment_size=SIZE, start_lsn=Lsn(SIZE + 40), stop_lsn=Lsn(SIZE + 400), finished_at=NOW,
            started_at=NOW, archive=Archive(size=750_000_000, pack_size=250_000_000, packs=packs),
        )  # fmt: skip
        return put_backup(self.store, made)

    def offline(
        self, target: RecoveryTarget = RecoveryTarget(), terms: StorageTerms | None = None, *, urgent: bool = False
    ) -> Offline:
        return find_offline(self.needs(target, terms), urgent=urgent)

    def needs(self, target: RecoveryTarget = RecoveryTarget(), terms: StorageTerms | None = None) -> Needs:
        request = replace(REQUEST, target=target)
        (source,), _ = find_sources(request, [self.repository], runner=Runner(), progress=Silent())
        return Needs(source, source.plan.candidates[0], {self.repository.tier: terms or azure()})

    def bring(self, offline: Offline, *, wait: bool = False, urgent: bool = False) -> list[str]:
        notes: list[str] = []
        bring_back(offline, urgent=urgent, wait=wait, clock=self.clock, progress=Silent(), note=notes.append)
        return notes

    @property
    def packs(self) -> int:
        """Stored bytes."""
        return sum(pack.size for pack in self.full.archive.packs)


def test_what_is_at_hand_needs_nothing() -> None:
    for bulk in (None, "Cool"):
        tier = Tier("archive", bulk, bulk)
        assert tier.needs().all_at_hand()
        assert tier.offline().objects == ()
        assert tier.bring(tier.offline()) == []


def test_all_that_is_offline_is_asked_for_at_once_and_never_twice() -> None:
    tier = Tier("archive", "Archive", "Archive")
    assert not tier.needs().all_at_hand()
    first = tier.offline(terms=azure())
    assert (len(first.asleep), len(first.arriving), first.seconds) == (PACKS + 4, 0, 15 * 3600)
    with pytest.raises(
        RecallPending, match=r"7 objects .* all were asked for just now, and arrive within about 15 hours"
    ):
        tier.bring(first)
    second = tier.offline()
    assert (len(second.asleep), len(second.arriving)) == (0, PACKS + 4)
    tier.clock.advance(14 * HOUR)
    with pytest.raises(RecallPending, match="all were asked for before"):
        tier.bring(second)
    tier.clock.advance(HOUR)
    assert tier.offline().objects == ()


def test_waiting_looks_until_all_is_there() -> None:
    tier = Tier("archive", "Archive")
    notes = tier.bring(tier.offline(), wait=True)
    assert tier.clock.now() - NOW == 15 * HOUR
    assert len(notes) == 1 and "waiting for it" in notes[0]
    assert tier.needs().all_at_hand()


@pytest.mark.parametrize(
    ("target", "segments"),
    [
        (RecoveryTarget(), 4),
        (RecoveryTarget("immediate"), 1),
        (RecoveryTarget("lsn", Lsn(3 * SIZE - 1)), 2),
        (RecoveryTarget("time", NOW + 30 * timedelta(days=1)), 4),
    ],
)
def test_wal_is_needed_up_to_the_target(target: RecoveryTarget, segments: int) -> None:
    assert len(Tier("archive", None, "Archive").offline(target).asleep) == segments


def test_wal_behind_the_backup_that_was_taken_after_the_time_is_not_needed() -> None:
    tier = Tier("archive", None, "Archive")
    later = NOW + timedelta(days=2)
    start = Lsn(2 * SIZE + 40)
    put_backup(
        tier.store,
        manifest(
            "20261128T000000Z-full", segment_size=SIZE, start_lsn=start, stop_lsn=start + 400, started_at=later,
            finished_at=later,
        ),
    )  # fmt: skip
    day_after = RecoveryTarget("time", NOW + timedelta(days=1))
    assert len(tier.offline(day_after).asleep) == 2
    assert len(tier.offline(RecoveryTarget("time", later)).asleep) == 3  # of the newer backup, from segment 2 on


def test_wal_that_another_tier_has_at_hand_is_not_asked_for() -> None:
    tier, other = Tier("archive", None, "Archive"), Tier("primary", None)
    other.store.delete(next(info.key for info in other.store.list() if info.key.count("000000010000000000000003")))
    request = replace(REQUEST, label=tier.full.label)
    sources, _ = find_sources(request, [tier.repository, other.repository], runner=Runner(), progress=Silent())
    source = next(found for found in sources if found.repository is tier.repository)
    needs = Needs(source, source.plan.candidates[0], {"archive": azure()})
    (only,) = find_offline(needs).asleep
    assert (only.tier, "000000010000000000000003" in only.key) == ("archive", True)


def test_a_name_cannot_be_looked_up_in_wal_that_is_offline() -> None:
    tier = Tier("archive", None, "Archive")
    request = replace(REQUEST, target=RecoveryTarget("name", "before_the_upgrade"), bin_dir=bin_dir(18))
    with pytest.raises(StoreError, match="looked up in the WAL, and some of that must be recalled") as caught:
        find_sources(request, [tier.repository], runner=Runner(), progress=Silent())
    assert caught.value.hint is not None and "--lsn" in caught.value.hint


def test_urgency_has_its_own_time_and_price() -> None:
    tier = Tier("archive", "Archive")
    usual, urgent = tier.offline(), tier.offline(urgent=True)
    assert (usual.seconds, urgent.seconds) == (15 * 3600, 3600)
    assert usual.cost == pytest.approx(tier.packs / 1e9 * 0.02)
    assert urgent.cost == pytest.approx(tier.packs / 1e9 * 0.1)


class _Troubled(MemoryStore):
    refuse: str | None = None
    silent = 0

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        if self.refuse is not None and self.refuse in key:
            raise AccessDenied("recall denied", hint="allow s3:RestoreObject.")
        return super().recall(key, urgent=urgent)

    def stat(self, key: str) -> ObjectInfo:
        info = super().stat(key)
        if info.availability is Availability.ARRIVING and self.silent:
            self.silent -= 1
            raise StoreUnavailable("no answer")
        return info


def _troubled(**trouble: Any) -> Tier:
    clock = FixedClock(NOW)
    store = _Troubled("cold", clock, classes=("Archive",), offline=("Archive",), latency=15 * HOUR)
    tier = Tier("archive", "Archive", store=store)
    tier.clock = clock
    vars(store).update(trouble)
    return tier


def test_an_object_that_cannot_be_asked_for_is_told_and_the_others_are_asked() -> None:
    tier = _troubled(refuse="000001.zst")
    with pytest.raises(StoreError, match=r"1 of 3 offline objects .*000001.zst on archive: recall denied") as caught:
        tier.bring(tier.offline(), wait=True)
    assert caught.value.hint == "allow s3:RestoreObject."
    assert [found.key[-10:] for found in tier.offline().asleep] == ["000001.zst"]


def test_a_store_that_does_not_answer_for_a_while_does_not_end_the_wait() -> None:
    tier = _troubled(silent=5)
    notes = tier.bring(tier.offline(), wait=True)
    assert any("could not be seen: no answer" in note for note in notes)
    assert tier.needs().all_at_hand()


def compared(
    tiers: list[Tier], terms: Mapping[str, StorageTerms], target: RecoveryTarget = RecoveryTarget()
) -> RestorePreview:
    request = replace(REQUEST, target=target, terms=terms)
    return preview(request, [tier.repository for tier in tiers], runner=Runner(), progress=Silent())


def test_the_preview_compares_the_tiers_by_time_and_cost() -> None:
    """By hand: 750 MB at 250 MB/s, four segments less 40 bytes at 100 MB/s, 2 s to start; and what must be recalled."""
    work = 750e6 / 250e6 + (4 * SIZE - 40) / 100e6 + 2
    tiers = [Tier("primary", "GLACIER"), Tier("secondary", "Cool"), Tier("archive", "Archive")]
    price = {"keep": 0, "read": BYTE}
    terms = {
        "primary": aws(GLACIER=price),
        "secondary": azure(Cool={"keep": 0, "read": 2 * BYTE}),
        "archive": azure(Archive=price, Hot={"keep": 0, "read": 10 * BYTE}),
    }
    seen = compared(tiers, terms)
    assert [tier.tier for tier in seen.tiers] == ["primary", "secondary", "archive"]
    glacier, cool, archive = seen.tiers
    packs, told = tiers[0].packs, tiers[0].full.backup_manifest.size
    assert glacier.estimated_seconds == pytest.approx(5 * 3600 + work) and glacier.recall_seconds == 5 * 3600
    assert cool.estimated_seconds == pytest.approx(work) == pytest.approx(seen.estimated_seconds)
    assert archive.estimated_seconds == pytest.approx(15 * 3600 + work)
    assert (glacier.cost, cool.cost) == (pytest.approx(packs), pytest.approx(2 * packs))
    assert archive.cost == pytest.approx(packs + 10 * (told + 4 * SIZE - 40))
    assert [(tier.offline_objects, tier.offline_bytes) for tier in seen.tiers] == [(3, packs), (0, 0), (3, packs)]
    assert [tier.is_chosen for tier in seen.tiers] == [False, True, False] and seen.tier == "secondary"


def test_the_preview_of_tiers_that_are_all_offline_chooses_the_first_and_asks_for_nothing() -> None:
    tiers = [Tier("secondary", "GLACIER"), Tier("archive", "Archive")]
    seen = compared(tiers, {"secondary": aws(), "archive": azure()})
    assert (seen.tier, seen.tiers[0].is_chosen, seen.tiers[0].arriving_objects) == ("secondary", True, 0)
    assert [len(tier.offline(terms=aws()).arriving) for tier in tiers] == [0, 0]
    with pytest.raises(RecallPending):
        tiers[0].bring(tiers[0].offline(terms=aws()))
    assert compared(tiers, {"secondary": aws(), "archive": azure()}).tiers[0].arriving_objects == PACKS
