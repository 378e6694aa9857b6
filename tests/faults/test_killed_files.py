"""What is done to snapshots of files, and with them, killed at one write after another: what is promised restores on
every tier, with contents and modes, nothing is half there, and the next run ends as an undisturbed one. Invariant 1.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dr_pipelines.repository.file_layout import SnapshotLayout
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.snapshot_manifest import SnapshotManifest
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.local import LocalStore
from tests.support.expiring import content
from tests.support.file_sets import tree
from tests.support.file_tiers import DOCS, contents, flip, labels, snapshot
from tests.support.killed import Tiers, serving_each, spread
from tests.support.killed_files import BOTH, DAYS, TARGET, LivedSet, restored, written

POINTS = 2
LOST = 11
"""The exit code of a scrub that found what nobody has whole."""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> LivedSet:
    return LivedSet(tmp_path_factory.mktemp("life"))


State = Callable[[Tiers], object]


def killed(
    life: LivedSet, begun: Path, folder: Path, argv: tuple[str, ...], state: State, *, code: int = 0
) -> Iterator[Tiers]:
    """Yields the tiers as soon as it was killed, each time at another write; then it is run again, and must end in the
    state of one that nobody disturbed."""
    with serving_each(folder, begun, (*BOTH, TARGET), cases=POINTS + 1, written=written(life.source)) as cases:
        first, *others = cases
        writes = first.run(*argv, code=code)
        ended = state(first)
        for write, tiers in zip(spread(len(writes), POINTS), others, strict=True):
            tiers.kill(*argv, write=write)
            yield tiers
            tiers.run(*argv, code=code)
            yield tiers
            assert state(tiers) == ended, f"killed at write {write} of {writes}"


def both(tiers: Tiers) -> dict[str, ObjectStore]:
    return {tier: tiers.store(tier) for tier in BOTH}


def keys(tiers: Tiers) -> dict[str, set[str]]:
    return {tier: content(store) for tier, store in both(tiers).items()}


def test_expiry_and_prune(life: LivedSet, tmp_path: Path) -> None:
    begun = life.write_to(tmp_path / "begun")
    before = content(LocalStore(begun / "primary", "primary"))
    argv = ("retention", "apply", DOCS, "--yes")
    for number, tiers in enumerate(killed(life, begun, tmp_path / "cases", argv, keys)):
        life.require(both(tiers), tmp_path / f"restored {number}")
    gone = before - content(tiers.store())
    for kind in ("/manifest.json", "/expired.json", "/archives/", "table.parquet", "/claims/"):
        assert any(kind in key for key in gone), kind


def test_undo(tmp_path: Path) -> None:
    expired = LivedSet(tmp_path / "life")
    for tier in BOTH:
        expired.let_go(tier)
    begun = expired.write_to(tmp_path / "begun")
    argv = ("retention", "undo", DOCS)
    for number, tiers in enumerate(killed(expired, begun, tmp_path / "cases", argv, keys)):
        expired.require(both(tiers), tmp_path / f"restored {number}")
    assert {*labels(expired.stores["primary"])} < {*labels(tiers.store())}


def test_copies(life: LivedSet, tmp_path: Path) -> None:
    begun = life.write_to(tmp_path / "begun")
    for number, tiers in enumerate(killed(life, begun, tmp_path / "cases", ("replicate", DOCS), whole)):
        life.require(both(tiers), tmp_path / f"restored {number}")
    assert {*life.lack} <= {*labels(tiers.store("secondary"))}


def whole(tiers: Tiers) -> dict[str, dict[str, bytes]]:
    """But for what a tier says of itself."""
    return {tier: contents(store) for tier, store in both(tiers).items()}


def test_a_scrub_that_repairs(life: LivedSet, tmp_path: Path) -> None:
    begun = life.write_to(tmp_path / "begun")
    on = {tier: LocalStore(begun / tier, tier) for tier in BOTH}
    good = contents(on["primary"])
    spoilt, lost = snapshot(on["primary"], sorted(life.trees)[4]), snapshot(on["primary"], life.lack[-1])
    others = {pack.key for label in (spoilt.label, life.lack[0]) for pack in packs(snapshot(on["primary"], label))}
    only_here = next(pack.key for pack in packs(lost) if pack.key not in others)
    for key in (spoilt.layout.manifest, spoilt.archives[0].packs[0].key, spoilt.tables[-1].key, only_here):
        flip(on["primary"], key)
    damaged = contents(on["primary"])
    for tiers in killed(life, begun, tmp_path / "cases", ("scrub", "primary"), scrubbed, code=LOST):
        now = contents(tiers.store())
        assert all(now[key] in (good[key], damaged[key]) for key in good)
        marked = {one.label for one in read_snapshots(tiers.store(), DOCS).snapshots if scrub_marks(tiers, one.label)}
        assert marked <= {lost.label}
    assert marked == {lost.label}
    assert {key for key in good if now[key] != good[key]} == {only_here}
    for label in sorted(life.promised - marked):
        assert restored(tiers.store(), label, tmp_path / label) == life.trees[label]


def packs(one: SnapshotManifest) -> list[StoredObject]:
    return [pack for archive in one.archives for pack in archive.packs]


def scrub_marks(tiers: Tiers, label: str) -> list[str]:
    return [info.key for info in tiers.store().list(SnapshotLayout(DOCS, label).damages)]


def scrubbed(tiers: Tiers) -> object:
    """Marks have names and times of their own."""
    marked = {label for label in labels(tiers.store()) if scrub_marks(tiers, label)}
    return contents(tiers.store()), marked, any(".damaged" in info.key for info in tiers.store().list())


def test_a_snapshot_into_a_bucket(tmp_path: Path) -> None:
    life = LivedSet(tmp_path / "life")
    begun = life.write_to(tmp_path / "begun")
    shutil.copytree(tmp_path / "life" / "state", begun / "state")
    life.write(DAYS)
    now = tree(life.source)

    def newest(tiers: Tiers) -> object:
        """Whatever the one that was killed left: nothing, archives that the next one uses, or a whole snapshot."""
        catalog = read_snapshots(tiers.store(), DOCS)
        new = [one for one in catalog.snapshots if one.label not in life.trees]
        for one in new:
            assert restored(tiers.store(), one.label, tmp_path / f"{tiers.folder.name} {one.label}") == now
        assert len(new) + len(catalog.unfinished) <= 3  # a crash of the first days, the killed one, this one
        return new[-1].counts.files, new[-1].counts.links, new[-1].partial

    for number, tiers in enumerate(killed(life, begun, tmp_path / "cases", ("files", "snapshot", DOCS), newest)):
        life.require(both(tiers), tmp_path / f"restored {number}")


def test_a_restore_into_a_bucket(life: LivedSet, tmp_path: Path) -> None:
    begun, label = life.write_to(tmp_path / "begun"), life.lack[0]
    files = {
        path.decode(): what[-2] for path, what in life.trees[label].items() if path.startswith(b"files/") and what[-2]
    }

    def there(tiers: Tiers) -> dict[str, bytes]:
        folder = tiers.stores[TARGET] / "back"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    argv = ("files", "restore", DOCS, label, "--to-store", f"{TARGET}/back", "--path", "files")
    for tiers in killed(life, begun, tmp_path / "cases", argv, there):
        assert there(tiers).items() <= files.items()
    assert there(tiers) == files
