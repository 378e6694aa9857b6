"""What a listing and the small objects beside a manifest say of a backup."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dr_pipelines.lsn import Lsn
from dr_pipelines.repository.catalog import Catalog, read_catalog
from dr_pipelines.repository.layout import BackupKind, ProofName, label_for
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from tests.support.archives import AT, manifest
from tests.support.faulty_store import FaultyStore
from tests.support.replicas import FULL, damage, filled


def key_of_the_keep(store: Any) -> str:
    [key] = [info.key for info in store.list() if "/keeps/" in info.key]
    return str(key)


def test_a_keep_that_cannot_be_read_holds_and_hides_no_backup() -> None:
    store = filled()
    damage(store, key_of_the_keep(store))
    catalog = read_catalog(store, "shop")
    [keep] = catalog.marks[FULL].keeps.values()
    assert keep.until is None
    assert "is no readable keep" in keep.reason
    assert [backup.label for backup in catalog.usable] == [backup.label for backup in catalog.backups]


def test_a_keep_that_is_taken_back_meanwhile_hides_no_backup() -> None:
    class Released(FaultyStore):
        def open(self, key: str, **part: Any) -> Any:
            if "/keeps/" in key:
                self.delete(key)
            return super().open(key, **part)

    catalog = read_catalog(Released(filled()), "shop")
    assert catalog.marks[FULL].keeps == {}
    assert FULL in {backup.label for backup in catalog.backups}


def test_long_chains_are_looked_through_once() -> None:
    backups: list[BackupManifest] = []
    for hour in range(1000):
        at, kind = AT + timedelta(hours=hour), BackupKind.INCREMENTAL if hour else BackupKind.FULL
        lies = dict(start_lsn=Lsn(0x1000 * hour), stop_lsn=Lsn(0x1000 * hour + 8), started_at=at, finished_at=at)
        parent = backups[-1].label if backups else None
        backups.append(manifest(label_for(at, kind), kind=kind, parent=parent, **lies))
    damaged = Catalog(tuple(backups), marks={backups[900].label: Marks(damage=("a mark",))})
    assert list(damaged.usable) == backups[:900]
    assert damaged.trouble(backups[-1]) == (
        f"{backups[900].label}, which it builds on, is damaged, and no tier had it whole"
    )


def test_of_two_proofs_of_one_second_the_failure_counts() -> None:
    proofs = [ProofName("scrub", AT, "fail"), ProofName("verify", AT, "pass")]
    assert Marks(proofs=tuple(proofs)).proven() is None
    assert Marks(proofs=tuple(proofs[::-1])).proven() is None


HOUR = timedelta(hours=1)


def proof(kind: str, hour: int, verdict: str) -> ProofName:
    return ProofName(kind, AT + hour * HOUR, verdict)


def test_only_a_restore_takes_back_what_a_restore_found() -> None:
    failed, read = proof("validate", 1, "fail"), proof("scrub", 2, "pass")
    assert Marks(proofs=(failed, read)).proven() is None
    again = proof("validate", 3, "pass")
    assert Marks(proofs=(failed, read, again)).proven() == again
    assert Marks(proofs=(failed, read, again, proof("verify", 4, "fail"))).proven() is None


def test_a_restore_proves_more_than_reading() -> None:
    restored, read = proof("validate", 1, "pass"), proof("scrub", 2, "pass")
    assert Marks(proofs=(read, restored)).proven() == restored
    assert Marks(proofs=(read,)).proven() == read
    assert Marks(proofs=(proof("scrub", 0, "fail"), restored)).proven() == restored


def test_what_could_not_be_looked_at_takes_nothing_back_and_proves_nothing() -> None:
    unseen = proof("validate", 2, "not-proven")
    assert Marks(proofs=(unseen,)).proven() is None
    assert Marks(proofs=(proof("validate", 1, "pass"), unseen)).proven() is not None
    assert Marks(proofs=(proof("validate", 1, "fail"), unseen)).proven() is None


def chain(**proofs: ProofName) -> dict[str, str | None]:
    """A full and two incrementals, one on the other, with proofs of some: what is said of each."""
    made: dict[str, BackupManifest] = {}
    for name, hour in (("full", 0), ("first", 1), ("second", 2)):
        parent = [*made.values()][-1].label if made else None
        kind = BackupKind.INCREMENTAL if made else BackupKind.FULL
        made[name] = manifest(label_for(AT + hour * HOUR, kind), kind=kind, parent=parent)
    marks = {made[name].label: Marks(proofs=(found,)) for name, found in proofs.items()}
    catalog = Catalog(tuple(made.values()), marks=marks)
    return {name: catalog.failed_validation(backup) for name, backup in made.items()}


def test_a_failed_validation_is_one_of_all_that_builds_on_it() -> None:
    assert not any(chain(full=proof("validate", 5, "pass")).values())
    said = chain(first=proof("validate", 5, "fail"))
    assert said["full"] is None
    assert said["first"] == "its validation failed on 2026-01-02 08:04 UTC"
    assert "which it builds on" in str(said["second"])
    # A later restore of the incremental needed all of the full; one of the full says nothing of the incremental.
    assert not chain(full=proof("validate", 5, "fail"), second=proof("validate", 6, "pass"))["second"]
    assert chain(full=proof("validate", 5, "fail"), second=proof("validate", 4, "pass"))["second"]
    assert chain(full=proof("validate", 6, "pass"), first=proof("validate", 5, "fail"))["second"]
