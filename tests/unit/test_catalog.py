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
