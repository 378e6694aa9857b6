"""Which system is restored, and that no WAL is missed while a stream moves it from the spool to the tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dr_pipelines.checks import failed, passed
from dr_pipelines.commands import Runner
from dr_pipelines.errors import BackupNotFound, IntegrityError, RestoreError, TargetUnreachable, WalGap
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import ObjectInfo, ObjectStore
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest, put_backup
from tests.unit.test_wal_spool import SIZE, head, whole

SYSTEM = "7000000000000000001"
REQUEST = RestoreRequest("shop", Path("/nowhere"))


def backup(label: str, system_id: str = SYSTEM) -> BackupManifest:
    """In segment 1."""
    return manifest(label, system_id=system_id, segment_size=SIZE, start_lsn=Lsn(SIZE + 40), stop_lsn=Lsn(SIZE + 400))


def tier(name: str, *backups: BackupManifest, store: ObjectStore | None = None) -> Repository:
    repository = Repository(store or MemoryStore(), Codec(1), name)
    repository.initialise()
    for made in backups:
        put_backup(repository.store, made)
    return repository


def put_wal(repository: Repository, *numbers: int, system_id: str = SYSTEM) -> None:
    for number in numbers:
        archive = repository.wal("shop", system_id, SIZE)
        archive.put_segment(WalSegment(Timeline(1), number, SIZE), b"1" * SIZE)


def sources(request: RestoreRequest, *tiers: Repository) -> list[Source]:
    return find_sources(request, tiers, runner=Runner(), progress=Silent())[0]


def test_a_tier_that_was_left_behind_never_brings_back_the_former_system() -> None:
    new, old = backup("20260110T000000Z-full", "9"), backup("20260102T030405Z-full", "1")
    primary, secondary = tier("primary", new), tier("secondary", old)
    put_wal(secondary, 1, system_id="1")
    with pytest.raises(WalGap):  # that the new one has no WAL is no reason for the old one
        sources(REQUEST, primary, secondary)
    (named,) = sources(replace(REQUEST, label=old.label), primary, secondary)
    assert named.backups == (old,)
    (alone,) = sources(REQUEST, secondary)
    assert alone.backups == (old,)


class _Moving(MemoryStore):
    """What happens right after WAL was listed."""

    meanwhile: Callable[[], None] | None = None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        listed = list(super().list(prefix))
        if "/wal/" in prefix and self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return iter(listed)


def test_wal_that_is_shipped_and_freed_while_it_is_listed_is_no_gap(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path).system(SYSTEM), _Moving()
    primary = tier("primary", backup("20260102T030405Z-full"), store=store)
    put_wal(primary, 1, 2)
    whole(spool, 2)

    def ship() -> None:
        for number in (3, 4):
            whole(spool, number)
        put_wal(primary, 3, 4)
        head(spool, 5)
        spool.free({file.name for file in spool.files() if file.whole})

    store.meanwhile = ship
    (found,) = sources(replace(REQUEST, spool=tmp_path), primary)
    assert found.plan.reachable_end >= Lsn(3 * SIZE)


def test_a_spool_that_cannot_be_read_hides_no_other_reason(tmp_path: Path) -> None:
    (tmp_path / SYSTEM).mkdir()  # not as a stream leaves it
    primary = tier("primary", backup("20260102T030405Z-full"))
    put_wal(primary, 1)
    with pytest.raises(TargetUnreachable, match="before the oldest"):
        sources(replace(REQUEST, spool=tmp_path, target=RecoveryTarget("lsn", Lsn(5))), primary)


# --- what a validation found ---

OLD, NEW = backup("20260102T030405Z-full"), backup("20260103T030405Z-full")
DAY = timedelta(days=1)


def judge(repository: Repository, about: BackupManifest, verdict: str, days: int = 1) -> None:
    seen = passed("restores_and_validates", "") if verdict == "pass" else failed("restores_and_validates", "")
    put_proof(
        repository.store, about.layout, "validate", seen, at=about.finished_at + days * DAY, tier="primary", run="t"
    )


def first(request: RestoreRequest, *tiers: Repository) -> tuple[str, str, tuple[str, ...]]:
    """Which backup of which tier is restored, and what is said of it."""
    found, notes = find_sources(request, tiers, runner=Runner(), progress=Silent())
    return found[0].plan.candidates[0].label, found[0].repository.tier, (*found[0].plan.notes, *notes)


def two(name: str = "primary") -> Repository:
    made = tier(name, OLD, NEW.model_copy(update={"start_lsn": Lsn(2 * SIZE + 40), "stop_lsn": Lsn(2 * SIZE + 400)}))
    put_wal(made, 1, 2, 3)
    return made


def test_what_failed_its_validation_gives_way_to_an_earlier_backup_with_more_wal() -> None:
    primary = two()
    assert first(REQUEST, primary)[0] == NEW.label
    judge(primary, NEW, "fail")
    label, _, said = first(REQUEST, primary)
    assert label == OLD.label
    assert any(f"{NEW.label} on primary is left out: its validation failed on" in note for note in said)
    judge(primary, NEW, "pass", days=2)
    assert first(REQUEST, primary)[0] == NEW.label


def test_a_person_may_take_what_failed() -> None:
    primary = two()
    judge(primary, NEW, "fail")
    for request in (replace(REQUEST, label=NEW.label), replace(REQUEST, even_failed=True)):
        label, _, said = first(request, primary)
        assert label == NEW.label
        assert any("is not good, as far as is known: its validation failed" in note for note in said)


def test_another_tier_serves_where_all_of_one_failed() -> None:
    primary, secondary = two(), two("secondary")
    judge(primary, OLD, "fail")
    judge(primary, NEW, "fail")
    assert first(REQUEST, primary, secondary)[:2] == (NEW.label, "secondary")
    with pytest.raises(BackupNotFound, match="can be used") as refused:
        first(REQUEST, primary)
    assert OLD.label in str(refused.value.hint)
    assert "--even-failed" in str(refused.value.hint)


def test_a_target_that_only_a_failed_backup_reaches_is_refused_with_the_way_out() -> None:
    primary = two()
    judge(primary, OLD, "fail")
    with pytest.raises(TargetUnreachable, match="before the oldest point") as refused:
        first(replace(REQUEST, target=RecoveryTarget("lsn", Lsn(2 * SIZE))), primary)
    assert "--even-failed" in str(refused.value.hint)


def test_what_is_not_proven_is_used_and_said() -> None:
    primary = two()
    assert any("was not proven by a restore yet" in note for note in first(REQUEST, primary)[2])
    judge(primary, NEW, "pass")
    assert not any("proven by a restore" in note for note in first(REQUEST, primary)[2])


# --- what a comparison of incrementals found ---

INCREMENTAL = manifest(
    "20260103T030405Z-incr",
    kind=BackupKind.INCREMENTAL,
    parent=OLD.label,
    system_id=SYSTEM,
    segment_size=SIZE,
    start_lsn=Lsn(4 * SIZE + 40),
    stop_lsn=Lsn(4 * SIZE + 400),
)


def test_where_wal_is_missing_a_person_may_take_an_incremental_that_a_comparison_speaks_against() -> None:
    primary = tier("primary", OLD, INCREMENTAL)
    put_wal(primary, 1, 2, 4, 5)
    unequal = failed("incrementals_are_equivalent", "")
    put_proof(primary.store, INCREMENTAL.layout, "equivalence", unequal, at=OLD.finished_at, tier="primary", run="t")
    at_the_end = replace(REQUEST, target=RecoveryTarget("lsn", Lsn(5 * SIZE)))
    with pytest.raises(RestoreError) as refused:
        first(at_the_end, primary)
    assert INCREMENTAL.label in str(refused.value.hint) and "--even-failed" in str(refused.value.hint)
    with pytest.raises(IntegrityError, match="not to give what its full gives") as named:
        first(replace(at_the_end, label=INCREMENTAL.label), primary)
    assert "--even-failed" in str(named.value.hint)
    for label in (None, INCREMENTAL.label):
        taken, _, said = first(replace(at_the_end, label=label, even_failed=True), primary)
        assert taken == INCREMENTAL.label
        assert any("is not good, as far as is known: was found" in note for note in said)
