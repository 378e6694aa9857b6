"""Snapshots of files on other tiers: copied whole, once, with what they share; how far behind a tier is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import BackupNotFound, IntegrityError, RepositoryError, UsageError
from dr_pipelines.operations import ReplicationReport
from dr_pipelines.progress import Silent
from dr_pipelines.repository.marks import Keep, put_expired, put_keep
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import read_all
from dr_pipelines.storage.wrappers import ReadOnly
from tests.support.file_tiers import (
    BEGIN,
    DOCS,
    FIRST,
    NOW,
    SECOND,
    THIRD,
    assert_whole_or_invisible,
    contents,
    empty,
    file_site,
    filled,
    flip,
    labels,
    snapshot,
    take,
)
from tests.support.replicas import Counting


def run(site: Site, tier: str = "secondary", **asked: Any) -> ReplicationReport:
    return operations.replicate(site, DOCS, tier, Silent(), **asked)


def test_everything_is_there_to_the_byte_and_what_is_shared_is_copied_once() -> None:
    source, target = filled().store, empty("secondary").store
    counting = Counting(target)
    site = file_site({"primary": ReadOnly(source), "secondary": counting})
    report = run(site)
    assert contents(target) == contents(source)
    assert (report.kind, report.labels) == ("snapshot", (FIRST, SECOND, THIRD))
    assert report.objects == len([key for key in contents(source) if not key.endswith("/manifest.json")])
    assert len(counting.puts) == len(set(counting.puts))
    for label in report.labels:
        manifest = snapshot(target, label)
        assert counting.puts.index(manifest.layout.manifest) > max(counting.puts.index(o.key) for o in manifest.objects)
    counting.puts.clear()
    assert (run(site).labels, counting.puts) == ((), [])
    assert operations.replica_is_current(site, DOCS, "secondary").passed


def test_a_copy_that_read_everything_is_a_proof_and_one_that_shares_is_none() -> None:
    source, target = filled().store, empty("secondary").store
    run(file_site({"primary": source, "secondary": target}))
    for store in (source, target):
        marks = read_snapshots(store, DOCS).marks
        assert [(proof.kind, proof.verdict) for proof in marks[FIRST].proofs] == [("replicate", "pass")]
        assert not marks[THIRD].proofs


def test_of_one_snapshot_all_that_it_needs_of_others_comes_along() -> None:
    source, target = filled().store, empty("secondary").store
    assert run(file_site({"primary": source, "secondary": target}), labels=[SECOND]).labels == (SECOND,)
    assert_whole_or_invisible(target)
    assert labels(target) == [SECOND]
    assert snapshot(source, FIRST).table.key in contents(target)
    with pytest.raises(BackupNotFound, match="no snapshot 'nonsense' of docs on primary"):
        run(file_site({"primary": source, "secondary": target}), labels=["nonsense"])


def test_a_shared_object_that_is_damaged_stops_only_what_needs_it() -> None:
    primary, target = filled(), empty("secondary").store
    source = primary.store
    take(primary, BEGIN + timedelta(hours=3), {"e": b"alone"})
    bad = snapshot(source, SECOND).archives[-1].packs[0].key
    flip(source, bad)
    site = file_site({"primary": source, "secondary": target})
    with pytest.raises(IntegrityError, match=f"{bad} on primary.* and 1 more could not be copied"):
        run(site)
    assert labels(target) == [FIRST, labels(source)[-1]]
    assert_whole_or_invisible(target)
    state = operations.look_at_replica(site, DOCS, "secondary")
    assert state.due == ()
    assert state.lag.waiting == (SECOND, THIRD)
    assert "was found damaged" in state.lag.held[0]
    assert state.check.verdict is Verdict.FAIL
    assert "2 snapshots wait" in state.check.summary


def test_a_list_that_is_damaged_stops_only_what_needs_it() -> None:
    source, target = filled().store, empty("secondary").store
    [bad] = {*snapshot(source, SECOND).lists} - {*snapshot(source, FIRST).lists}
    flip(source, bad.key)
    site = file_site({"primary": source, "secondary": target})
    assert run(site).labels == (FIRST,)
    with pytest.raises(IntegrityError, match=f"{bad.key} on primary"):
        run(site, labels=[SECOND])
    assert labels(target) == [FIRST]
    assert_whole_or_invisible(target)


def test_what_is_kept_there_for_less_time_is_not_sent() -> None:
    primary, target = filled(), empty("secondary").store
    site = file_site({"primary": primary.store, "secondary": target}, tiers={"secondary": "11 hours"})
    assert run(site).labels == (SECOND, THIRD)
    keep = Keep(until=None, reason="audit", by="ann", at=NOW)
    put_keep(primary.store, snapshot(primary.store, FIRST).layout, keep)
    assert run(site).labels == (FIRST,)
    assert list(read_snapshots(target, DOCS).marks[FIRST].keeps.values()) == [keep]


def test_without_versions_only_the_newest_is_sent() -> None:
    site = file_site({"primary": filled().store, "secondary": empty("secondary").store}, versioning=False)
    assert run(site).labels == (THIRD,)


def test_an_archive_gets_the_newest_of_each_month_that_is_over() -> None:
    primary, cold = filled(), empty("archive").store
    clock = FixedClock(NOW)
    site = file_site({"primary": primary.store, "archive": cold}, clock=clock, retention="200 days")
    assert run(site, "archive").labels == (THIRD,)  # it holds none at all
    newer = take(primary, BEGIN + timedelta(days=20), {"x": b"x"}, snapshot(primary.store, THIRD))
    assert run(site, "archive").labels == ()
    clock.advance(timedelta(days=31))
    take(primary, clock.now(), {"y": b"y"}, newer)
    assert run(site, "archive").labels == (newer.label,)
    assert_whole_or_invisible(cold)
    assert operations.replicated_tiers(site, DOCS) == ("archive",)
    nothing = file_site({"primary": primary.store, "archive": cold}, replication={"archive": {"send": "nothing"}})
    assert operations.replicated_tiers(nothing, DOCS) == ()


def test_a_copy_whose_shared_objects_were_lost_is_due_again() -> None:
    source, target = filled().store, empty("secondary").store
    site = file_site({"primary": source, "secondary": target})
    run(site)
    target.delete(snapshot(source, FIRST).archives[0].packs[0].key)
    for label in (FIRST, SECOND, THIRD):
        assert [check.verdict for check in operations.replicas_equal(site, DOCS, label)] == [Verdict.FAIL]
    assert run(site).labels == (FIRST, SECOND, THIRD)
    assert contents(target) == contents(source)
    assert all(operations.replica_equals(site, DOCS, label, "secondary").passed for label in (FIRST, SECOND, THIRD))


def test_what_was_expired_there_is_not_sent_again() -> None:
    source, target = filled().store, empty("secondary").store
    site = file_site({"primary": source, "secondary": target})
    run(site)
    gone = snapshot(target, FIRST).layout
    put_expired(target, gone, read_all(target, gone.manifest), at=NOW, reason="too old")
    target.delete(gone.manifest)
    assert run(site).labels == ()
    with pytest.raises(RepositoryError, match="was expired from secondary"):
        run(site, labels=[FIRST])


def test_a_copy_is_compared_with_its_original() -> None:
    source, target = filled().store, empty("secondary").store
    site = file_site({"primary": source, "secondary": target})
    run(site)
    flip(target, snapshot(target, FIRST).archives[0].packs[0].key)
    assert "are damaged" in operations.replica_equals(site, DOCS, THIRD, "secondary").summary
    with pytest.raises(UsageError, match="nothing is copied from primary to primary"):
        operations.replicate(site, DOCS, "primary", Silent())
