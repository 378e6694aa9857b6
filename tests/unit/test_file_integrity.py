"""`dr verify` of a file set: what is said of a stored snapshot, and that whatever is wrong with it is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.files.verify import contents_match
from dr_pipelines.progress import Silent
from dr_pipelines.replication.immutability import lock_is_in_force
from dr_pipelines.repository.archive_lists import encode_list
from dr_pipelines.repository.codec import FRAME_SIZE, Codec
from dr_pipelines.repository.completeness import snapshot_is_complete
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.owners import FileSetOwner
from dr_pipelines.repository.placement import Placement
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import Part
from dr_pipelines.repository.snapshot_manifest import Snapshot, encode_snapshot
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.file_tiers import BEGIN, DOCS, NOW, empty, file_site, flip, take

READ = ["snapshot_is_complete", "objects_match_sha256", "contents_match"]
CHECKS = [*READ, "recipients_are_as_planned", "lock_is_in_force"]
LARGE = 17 * 1024 * 1024
"""A file of an archive of its own."""


class Place:
    """A directory, its file set on one or two tiers, and the clock."""

    def __init__(self, folder: Path, *tiers: str, encryption: object = "none", **changes: object) -> None:
        self.source, self.clock = folder / "source", FixedClock(NOW)
        self.source.mkdir()
        self.stores: dict[str, ObjectStore] = {tier: MemoryStore(tier, self.clock) for tier in tiers or ("primary",)}
        for tier in self.stores:
            empty(tier, self.stores[tier])
        self._folder, self._encryption, self._changes = folder, encryption, changes

    def site(self, **stores: ObjectStore) -> Site:
        source = {"type": "directory", "path": str(self.source)}
        changes = {"source": source, **self._changes}
        return file_site(
            {**self.stores, **stores}, clock=self.clock, encryption=self._encryption,
            state_dir=str(self._folder / "state"), **changes,
        )  # fmt: skip

    def fill(self) -> None:
        (self.source / "deep").mkdir()
        for number in range(40):
            (self.source / "deep" / f"{number}.txt").write_bytes(os.urandom(10) + b"%d" % number * 1000)
        (self.source / "twin").write_bytes((self.source / "deep" / "7.txt").read_bytes())
        (self.source / "nothing").write_bytes(b"")
        (self.source / "large").write_bytes(b"large" * (LARGE // 5 + 1))
        (self.source / "link").symlink_to("large")

    def take(self) -> Snapshot:
        return operations.take_snapshot(self.site(), DOCS, Silent())

    def check(self, label: str = "latest", tier: str = "primary", **asked: object) -> dict[str, CheckResult]:
        site = asked.pop("site", None) or self.site()
        found = operations.check_snapshot(site, DOCS, label, tier, Silent(), **asked)  # type: ignore[arg-type]
        return {check.name: check for check in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.fill()
    return made


def verdicts(checks: dict[str, CheckResult]) -> dict[str, Verdict]:
    return {name: check.verdict for name, check in checks.items()}


def test_a_whole_snapshot_passes_and_says_what_was_seen(place: Place) -> None:
    place.take()
    (place.source / "deep" / "3.txt").write_bytes(b"changed")
    taken = place.take()
    found = place.check()
    assert verdicts(found) == dict.fromkeys(CHECKS, Verdict.PASS)
    assert found["lock_is_in_force"].skipped
    seen = found["contents_match"].details
    assert (seen["files"], seen["of"]) == (43, 43)
    assert seen["contents"] == 41  # twins are one, and what is empty is none
    assert seen["bytes"] > LARGE
    assert found["objects_match_sha256"].details["objects"] == len(taken.objects)
    marks = read_snapshots(place.stores["primary"], DOCS).marks[taken.label]
    assert [(proof.kind, proof.verdict) for proof in marks.proofs if proof.kind != "anomaly"] == [("verify", "pass")]


def test_a_flipped_bit_in_any_object_is_found_and_the_files_named(place: Place) -> None:
    taken, store = place.take(), place.stores["primary"]
    for stored in taken.objects:
        whole = read_all(store, stored.key)
        flip(store, stored.key)
        found = place.check()
        assert found["objects_match_sha256"].verdict is Verdict.FAIL
        if stored not in taken.break_glass:
            assert found["contents_match"].verdict is Verdict.FAIL
            assert stored.key in found["contents_match"].summary
        store.put(stored.key, Body.of(whole), if_absent=False)
    large = next(archive for archive in taken.archives if archive.size > LARGE)
    store.delete(large.packs[0].key)
    found = place.check(only=["contents_match"])
    assert found["contents_match"].details["lost"] == ["large"]
    assert place.check()["snapshot_is_complete"].verdict is Verdict.FAIL
    proofs = read_snapshots(store, DOCS).marks[taken.label].proofs
    assert {proof.verdict for proof in proofs} == {"fail"}


def rewritten(place: Place, change: Callable[[bytearray], None]) -> None:
    """As if other bytes had been packed: every digest of a stored object is right. Of the archive that holds a file of
    the folder `deep`."""
    [taken], store, codec = read_snapshots(place.stores["primary"], DOCS).snapshots, place.stores["primary"], Codec(1)
    content = (place.source / "deep" / "7.txt").read_bytes()
    for small in (one for one in taken.archives if one.size < FRAME_SIZE):
        tar = bytearray(codec.decode(read_all(store, small.packs[0].key)))
        if content in tar:
            break
    change(tar)
    body = Body.of(codec.encode(bytes(tar)))
    store.put(small.packs[0].key, body, if_absent=False)
    pack = StoredObject(key=small.packs[0].key, size=body.size, sha256=body.sha256)
    archives = tuple(
        one.model_copy(update={"packs": (pack,), "size": len(tar)}) if one is small else one for one in taken.archives
    )
    listed = Body.of(encode_list(archives))
    store.put(taken.lists[0].key, listed, if_absent=False)
    named = StoredObject(key=taken.lists[0].key, size=listed.size, sha256=listed.sha256)
    manifest = taken.model_copy(update={"lists": (named,)})
    store.put(taken.layout.manifest, Body.of(encode_snapshot(manifest)), if_absent=False)


def test_content_that_is_not_what_the_table_says_is_found_though_every_object_matches(place: Place) -> None:
    place.take()
    content = (place.source / "deep" / "7.txt").read_bytes()

    def change(tar: bytearray) -> None:
        tar[tar.index(content) + 500] ^= 1

    rewritten(place, change)
    found = place.check()
    assert found["objects_match_sha256"].passed
    assert found["contents_match"].details["wrong"] == ["deep/7.txt", "twin"]


def test_an_archive_that_is_too_short_is_found(place: Place) -> None:
    place.take()
    rewritten(place, lambda tar: tar.__delitem__(slice(len(tar) // 2, None)))
    found = place.check()
    assert found["objects_match_sha256"].passed
    assert found["contents_match"].verdict is Verdict.FAIL
    assert "deep/" in found["contents_match"].summary


def test_without_a_key_only_stored_bytes_are_proven(tmp_path: Path) -> None:
    identity = generate_identity()
    place = Place(tmp_path, encryption={"recipients": [str(identity.recipient)]})
    place.fill()
    taken = place.take()
    found = place.check()
    assert found["contents_match"].verdict is Verdict.NOT_PROVEN
    assert found["objects_match_sha256"].passed
    assert found["recipients_are_as_planned"].passed
    [proof] = read_snapshots(place.stores["primary"], DOCS).marks[taken.label].proofs
    assert (proof.kind, proof.verdict) == ("digests", "pass")
    plan = place.site().plan
    found = place.check(site=Site(plan, clock=place.clock, stores=place.stores, identity=identity.reveal()))
    assert verdicts(found) == dict.fromkeys(CHECKS, Verdict.PASS)
    assert "the identity at hand opens them" in found["recipients_are_as_planned"].summary
    other = Site(plan.model_copy(update={"encryption": None}), clock=place.clock, stores=place.stores)
    assert place.check(site=other)["recipients_are_as_planned"].verdict is Verdict.FAIL


def test_what_could_not_be_read_proves_nothing(place: Place) -> None:
    taken = place.take()
    calls = FaultyStore(place.stores["primary"])
    repository = Repository(calls, Codec(1), "primary")
    assert contents_match(repository, taken, Silent()).passed
    for fail_at in range(1, calls.calls + 1):
        faulty = FaultyStore(place.stores["primary"], fail_at=fail_at, stays_down=True)
        result = contents_match(Repository(faulty, Codec(1), "primary"), taken, Silent())
        assert result.verdict is Verdict.NOT_PROVEN
    assert not [
        one for one in read_snapshots(place.stores["primary"], DOCS).marks[taken.label].proofs if one.kind != "anomaly"
    ]


def test_a_snapshot_of_nothing_proves_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.take()
    found = place.check()
    assert found["contents_match"].verdict is Verdict.NOT_PROVEN
    assert "it holds no file" in found["contents_match"].summary


def test_parts_one_after_the_other_read_everything(place: Place) -> None:
    for number in range(4):
        (place.source / f"more-{number}").write_bytes(b"%d" % number * (LARGE // 20))
        taken = place.take()
    repository = Repository(place.stores["primary"], Codec(1), "primary")
    read = [contents_match(repository, taken, Silent(), Part(number, 5)) for number in range(5)]
    assert all(result.passed for result in read)
    assert sum(result.details["contents"] for result in read) >= 45
    assert any(result.details["files"] < result.details["of"] for result in read)
    assert "a sample of" in next(iter(place.check(sample=20, only=["contents_match"]).values())).summary
    assert not [
        one for one in read_snapshots(place.stores["primary"], DOCS).marks[taken.label].proofs if one.kind != "anomaly"
    ]


def test_a_partial_snapshot_fails_or_warns_as_planned() -> None:
    primary = empty()
    taken = take(primary, BEGIN, {"a": b"a"}, unreadable=2)
    failed = snapshot_is_complete(primary.store, taken)
    assert failed.verdict is Verdict.FAIL
    assert "it is partial: 2 files of its source could not be read" in failed.summary
    warned = snapshot_is_complete(primary.store, taken, "warn")
    assert warned.passed
    assert warned.details["unreadable"] == 2
    assert "it is partial" in warned.summary
    primary.store.delete(taken.archives[0].packs[0].key)
    assert snapshot_is_complete(primary.store, taken, "warn").verdict is Verdict.FAIL


def test_what_lies_beside_a_snapshot_for_the_worst_day_is_written_anew(place: Place) -> None:
    taken, store = place.take(), place.stores["primary"]
    assert taken.break_glass
    good = {stored.key: read_all(store, stored.key) for stored in taken.break_glass}
    for key in good:
        flip(store, key)
    report = operations.scrub(place.site(), "primary", Silent())
    assert {outcome.by for outcome in report.outcomes} == {"the manifests"}
    assert {key: read_all(store, key) for key in good} == good


@pytest.mark.parametrize("what", ["archive", "table"])
def test_what_a_scrub_found_lost_is_stored_anew_by_the_next_snapshot(place: Place, what: str) -> None:
    # What was written to just before a snapshot is read again: these files were not.
    place.clock.advance(SystemClock().now() - NOW + timedelta(hours=1))
    taken, store = place.take(), place.stores["primary"]
    bad = taken.table if what == "table" else max(taken.archives, key=lambda archive: archive.size).packs[0]
    flip(store, bad.key)
    (place.source / "new").write_bytes(b"new")
    place.clock.advance(timedelta(hours=1))
    heir = place.take()  # nobody knows yet
    assert bad in heir.objects
    with_losses = operations.scrub(place.site(), "primary", Silent())
    assert [lost.label for lost in with_losses.servers[0].lost_backups] == [taken.label, heir.label]
    place.clock.advance(timedelta(hours=1))
    after = place.take()
    assert bad.key not in {stored.key for stored in after.objects}
    assert verdicts(place.check()) == dict.fromkeys(CHECKS, Verdict.PASS)
    assert [one.label for one in read_snapshots(store, DOCS).usable] == [after.label]


def test_copies_are_looked_at_too(tmp_path: Path) -> None:
    place = Place(tmp_path, "primary", "secondary")
    place.fill()
    taken = place.take()
    assert place.check(only=["replica_equals"])["replica_equals"].skipped  # it has an hour to get there
    operations.replicate(place.site(), DOCS, "secondary", Silent())
    assert place.check(only=["replica_equals"])["replica_equals"].passed
    found = operations.check_snapshot_replica(place.site(), DOCS, taken.label, "secondary", Silent())
    assert [check.verdict for check in found] == [Verdict.PASS] * 3
    flip(place.stores["secondary"], taken.archives[0].packs[0].key)
    assert place.check(only=["replica_equals"])["replica_equals"].verdict is Verdict.FAIL
    assert place.check(tier="secondary")["contents_match"].verdict is Verdict.FAIL


def test_what_a_snapshot_shares_must_be_locked_as_long_as_it_is_needed() -> None:
    clock, lock_for = FixedClock(BEGIN), timedelta(days=30)
    store = MemoryStore("primary", clock)
    primary = Repository(store, Codec(1), "primary", Placement(clock, lock_for))
    primary.initialise()
    first = take(primary, BEGIN, {"a": b"a"})

    def locked(manifest: Snapshot | None) -> CheckResult:
        return lock_is_in_force(primary, FileSetOwner(DOCS), lock_for, now=clock.now(), backup=manifest)

    assert locked(first).passed
    clock.advance(timedelta(days=29))
    second = take(primary, clock.now(), {"b": b"b"}, first)
    assert locked(second).passed
    assert locked(None).passed
    clock.advance(timedelta(days=2))
    assert locked(second).verdict is Verdict.FAIL
    assert locked(first).skipped
    for stored in second.objects:
        if (store.stat(stored.key).retain_until or BEGIN) < clock.now() + timedelta(days=28):
            store.extend_lock(stored.key, clock.now() + timedelta(days=28))
    assert locked(second).passed
