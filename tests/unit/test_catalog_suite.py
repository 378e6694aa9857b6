"""What a repository says of itself, held against expectations: each fails for its reason, and none passes unseen."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn
from dr_pipelines.operations import judge_catalog
from dr_pipelines.plan.load import load_plan
from dr_pipelines.plan.model import BackupSchedulePlan
from dr_pipelines.repository import layout
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind, BackupLayout, label_for, parse_evidence
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.site import Site
from dr_pipelines.storage.base import read_all
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.validation.catalog_suite import (
    catalog_rows,
    catalog_suite,
    object_rows,
    object_suite,
    size_row,
    size_suite,
    usual_before,
)
from dr_pipelines.validation.suites import Suite, judged
from tests.support.archives import manifest, put_backup, stored_object

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAILY = BackupSchedulePlan.model_validate({"full": "daily", "incremental": "hourly"})
DAY = timedelta(days=1)


def run(suite: Suite, rows: list[dict[str, Any]], named_by: str = "label") -> CheckResult:
    # Great Expectations is loaded by the first test that needs it.
    from dr_pipelines.validation.expectations import run_over_records

    return judged("looked_at", [run_over_records(suite, rows, named_by=named_by)])


def failures(result: CheckResult) -> set[str]:
    return {row["expectation"] for row in result.details["expectations"] if row["result"] == "FAILED"}


def backup(
    at: datetime,
    kind: BackupKind = BackupKind.FULL,
    *,
    raw: int = 9000,
    stored: int = 3000,
    seconds: int = 60,
    **more: Any,
) -> BackupManifest:
    """One pack of `stored` bytes; LSNs grow with time."""
    label = label_for(at, kind)
    pack = stored_object(BackupLayout("shop", label).pack(0, ".zst")).model_copy(update={"size": stored})
    position = int((at - NOW + 60 * DAY).total_seconds()) << 8
    given: dict[str, Any] = {
        "kind": kind,
        "asked_kind": kind,
        "started_at": at,
        "finished_at": at + timedelta(seconds=seconds),
        "start_lsn": Lsn(position),
        "stop_lsn": Lsn(position + 64),
        "archive": {"size": raw, "pack_size": max(raw, 1), "packs": (pack,)},
    }
    return manifest(label, **given | more)


# --- the objects of a backup --------------------------------------------------------------------------------


def three_packs(numbers: Iterable[int] = (0, 1, 2), *, size: int = 25, **more: Any) -> BackupManifest:
    keys = BackupLayout("shop", "20260102T030405Z-full")
    packs = tuple(stored_object(keys.pack(number, ".zst")) for number in numbers)
    return manifest(archive={"size": size, "pack_size": 10, "packs": packs}, **more)


def look_at_objects(made: BackupManifest, **listed: int | None) -> CheckResult:
    """As if the store held what the manifest names, but for what is said by the last part of its key."""
    found = {named.key: named.size for named in made.objects}
    for key in [*found]:
        name = key.rpartition("/")[2].partition(".")[0]
        if name in listed:
            del found[key]
            if (size := listed[name]) is not None:
                found[key] = size
    rows = object_rows(made, found)
    return run(object_suite(made, rows), rows, "key")


def test_a_whole_backup_meets_all_of_it() -> None:
    result = look_at_objects(three_packs())
    assert result.verdict is Verdict.PASS
    assert (result.details["declared"], result.details["evaluated"]) == (14, 14)
    assert result.details["rows"] == 5


def test_each_object_is_looked_at() -> None:
    foreign = stored_object("servers/shop/backups/20260102T030405Z-full/../other")
    nameless = stored_object("servers/shop/backups/20260102T030405Z-full/index.json.zst")
    short, bare = nameless.model_copy(update={"sha256": "abc"}), nameless.model_copy(update={"sha256": ""})
    empty = nameless.model_copy(update={"size": 0})
    assert failures(look_at_objects(three_packs(index=foreign))) == {"every key is one of this backup"}
    assert failures(look_at_objects(three_packs(index=short))) == {"every digest is a SHA-256"}
    assert failures(look_at_objects(three_packs(index=bare))) == {"every digest is a SHA-256"}
    assert "no object is empty" in failures(look_at_objects(three_packs(index=empty)))
    twice = three_packs()
    twice = twice.model_copy(update={"index": twice.backup_manifest})
    assert failures(look_at_objects(twice)) == {"no key is there twice"}


def test_a_digest_that_is_null_is_no_digest() -> None:
    """Most expectations take NULL for right: the column of digests must have none, and one that has only NULLs proves
    nothing of digests."""
    made = three_packs()
    rows = object_rows(made, {named.key: named.size for named in made.objects})
    for row in rows:
        row["sha256"] = None
    result = run(object_suite(made, rows), rows, "key")
    assert failures(result) == {"every object has a digest"}
    of_digests = [row for row in result.details["expectations"] if row["expectation"] == "every digest is a SHA-256"]
    assert [row["result"] for row in of_digests] == ["not proven"]


def test_a_gap_in_the_packs() -> None:
    assert failures(look_at_objects(three_packs((0, 2)))) == {"no pack's number is left out"}
    assert failures(look_at_objects(three_packs((0, 1)))) == {
        "packs end where the archive does",
        "no pack's number is left out",
    }
    assert "packs begin at 0" in failures(look_at_objects(three_packs((1, 2))))


def test_the_store_is_asked() -> None:
    lost = look_at_objects(three_packs(), index=None)
    assert failures(lost) == {"every object is in the store", "sizes add up to what the store holds"}
    assert "index.json.zst" in lost.summary
    assert failures(look_at_objects(three_packs(), index=1)) == {
        "every object has its size in the store",
        "sizes add up to what the store holds",
    }


def test_an_empty_table_meets_nothing() -> None:
    empty = run(object_suite(three_packs(), []), [], "key")
    assert empty.verdict is Verdict.FAIL
    assert "the manifest names objects" in failures(empty)
    assert not [row for row in empty.details["expectations"] if row["result"] == "met"]


# --- the catalog --------------------------------------------------------------------------------------------


def look_at_catalog(*backups: BackupManifest, now: datetime = NOW, schedule: Any = DAILY) -> CheckResult:
    rows = catalog_rows(Catalog(backups))
    return run(catalog_suite("shop", rows, schedule, now), rows)


FULLS = [backup(NOW - days * DAY - timedelta(hours=10)) for days in (3, 2, 1, 0)]
HOURLY = backup(NOW - timedelta(minutes=59), BackupKind.INCREMENTAL, parent=FULLS[-1].label)


def test_a_catalog_as_it_should_be() -> None:
    result = look_at_catalog(*FULLS, HOURLY)
    assert (result.verdict, result.details["skipped"]) == (Verdict.PASS, 0)
    alone = look_at_catalog(FULLS[-1], schedule=None)
    assert (alone.verdict, alone.details["skipped"]) == (Verdict.PASS, 2)


def test_each_row_of_the_catalog_is_looked_at() -> None:
    back = HOURLY.model_copy(update={"stop_lsn": Lsn(1), "start_lsn": Lsn(0)})
    assert failures(look_at_catalog(*FULLS, back)) == {"on one timeline a backup that ends later stops at a later LSN"}
    turned = FULLS[0].model_copy(update={"stop_lsn": Lsn(1)})
    assert failures(look_at_catalog(turned, *FULLS[1:], HOURLY)) == {"no backup stops before the LSN that it starts at"}
    orphan = HOURLY.model_copy(update={"parent": "20250101T000000Z-full"})
    assert failures(look_at_catalog(*FULLS, orphan)) == {"what an incremental builds on is there"}
    early = HOURLY.model_copy(update={"finished_at": HOURLY.started_at - DAY / 100})
    assert failures(look_at_catalog(*FULLS, early)) == {"no backup ends before it begins"}
    other = HOURLY.model_copy(update={"kind": BackupKind.FULL, "parent": None})
    assert "every backup is of the kind that its label says" in failures(look_at_catalog(*FULLS, other))
    hollow = backup(NOW - timedelta(minutes=59), BackupKind.INCREMENTAL, parent=FULLS[-1].label, raw=0)
    assert failures(look_at_catalog(*FULLS, hollow)) == {"every backup holds bytes"}


def test_the_newest_is_as_new_as_the_schedule_permits() -> None:
    full, any_kind = (f"the newest {what} is not older than the schedule permits" for what in ("full", "backup"))
    assert failures(look_at_catalog(*FULLS, HOURLY, now=NOW + timedelta(hours=3))) == {any_kind}
    later = backup(NOW + DAY, BackupKind.INCREMENTAL, parent=FULLS[-1].label)
    assert failures(look_at_catalog(*FULLS, later, now=NOW + DAY)) == {full}
    assert failures(look_at_catalog(later)) >= {full, "no backup is of the future"}


def test_no_catalog_meets_nothing() -> None:
    result = look_at_catalog()
    assert result.verdict is Verdict.FAIL
    assert not [row for row in result.details["expectations"] if row["result"] == "met"]


# --- as usual? ----------------------------------------------------------------------------------------------


def look_at_size(newest: BackupManifest, earlier: Iterable[BackupManifest]) -> CheckResult:
    return run(size_suite(newest, usual_before(newest, [*earlier, newest])), [size_row(newest)])


def test_what_is_as_usual_passes() -> None:
    result = look_at_size(backup(NOW, raw=12000, stored=4200), FULLS)
    assert (result.verdict, result.details["evaluated"]) == (Verdict.PASS, 4)


@pytest.mark.parametrize(
    ("raw", "stored", "what"),
    [(3000, 1000, {"raw", "stored"}), (27000, 9000, {"raw", "stored"}), (9000, 900, {"stored"})],
    ids=["a third", "thrice", "much less stored"],
)
def test_a_full_of_another_size_is_flagged(raw: int, stored: int, what: set[str]) -> None:
    result = look_at_size(backup(NOW, raw=raw, stored=stored), FULLS)
    assert {said.split()[1] for said in failures(result)} == what


def test_what_suddenly_does_not_compress_is_flagged() -> None:
    encrypted = look_at_size(backup(NOW, raw=9000, stored=8900), FULLS)
    assert failures(encrypted) == {"it compresses as usual (an attacker's encryption does not compress)"}
    partly = look_at_size(backup(NOW, raw=9000, stored=6100), FULLS)
    assert partly.verdict is Verdict.FAIL  # 2 of 3 parts no longer compress
    never = [backup(NOW - days * DAY, raw=9000, stored=8800) for days in (3, 2, 1)]
    seen = look_at_size(backup(NOW, raw=9000, stored=8990), never)
    assert (seen.verdict, seen.details["skipped"]) == (Verdict.PASS, 1)


def test_of_incrementals_only_what_does_not_compress_is_a_failure() -> None:
    earlier = [backup(NOW - hours * DAY / 24, BackupKind.INCREMENTAL, parent="x") for hours in range(1, 6)]
    large = look_at_size(backup(NOW, BackupKind.INCREMENTAL, raw=90000, stored=30000, parent="x"), earlier)
    assert (large.verdict, large.details["warnings"]) == (Verdict.PASS, 2)
    encrypted = look_at_size(backup(NOW, BackupKind.INCREMENTAL, raw=9000, stored=8900, parent="x"), earlier)
    assert encrypted.verdict is Verdict.FAIL


def test_a_long_one_is_shown_and_fails_nothing() -> None:
    result = look_at_size(backup(NOW, seconds=600), FULLS)
    assert (result.verdict, result.details["warnings"]) == (Verdict.PASS, 1)
    assert "1 not met as a warning" in result.summary


def test_too_few_before_it_prove_nothing() -> None:
    """Two of its kind and system; others do not count."""
    others = [HOURLY, *(one.model_copy(update={"system_id": "2"}) for one in FULLS)]
    result = look_at_size(backup(NOW), [*others, *FULLS[:2]])
    assert (result.verdict, result.details["evaluated"], result.details["skipped"]) == (Verdict.NOT_PROVEN, 0, 4)
    assert {row["result"] for row in result.details["expectations"]} == {"skipped"}
    assert "fewer than 3 earlier backups" in result.summary


# --- all of it, as an operation -----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    path = tmp_path / "plan.yaml"
    path.write_text(
        """
version: 1
name: one
storage: {bucket: {type: local, path: store}}
encryption: none
databases:
  shop:
    connection: {host: localhost}
    schedule: {full: daily}
    storage: {primary: bucket}
"""
    )
    return Site(load_plan(path), clock=FixedClock(NOW), stores={"bucket": MemoryStore()})


def small(at: datetime) -> BackupManifest:
    return manifest(
        label_for(at, BackupKind.FULL),
        started_at=at,
        finished_at=at + timedelta(minutes=1),
        start_lsn=Lsn(int(at.timestamp())),
        stop_lsn=Lsn(int(at.timestamp()) + 9),
    )


def test_a_tier_is_read_judged_and_what_was_seen_is_kept(site: Site) -> None:
    store = site.store("bucket")
    for days in range(5):
        put_backup(store, small(NOW - days * DAY - timedelta(hours=10)))
    found = judge_catalog(site, "shop")
    assert {name: result.verdict for name, result in found.items()} == {
        "manifest_meets_expectations": Verdict.PASS,
        "catalog_meets_expectations": Verdict.PASS,
        "size_is_as_usual": Verdict.PASS,
    }
    (key,) = {result.details["document"] for result in found.values()}
    page = read_all(store, key).decode()
    assert key.endswith(".html")
    assert "every digest is a SHA-256" in page
    assert "on one timeline a backup that ends later stops at a later LSN" in page
    # It can be read with no network, and nothing in it runs.
    assert not [word for word in ("http:", "https:", "src=", "href=", "<script", "<link") if word in page]
    assert parse_evidence(key) is None  # no evidence for programs
    assert [info.key for info in store.list(layout.EVIDENCE)] == [key]

    newest = small(NOW - timedelta(hours=10))
    store.delete(newest.objects[0].key)
    lost = judge_catalog(site, "shop")["manifest_meets_expectations"]
    assert lost.verdict is Verdict.FAIL
    assert newest.objects[0].key in lost.summary


def test_no_backup_at_all_fails(site: Site) -> None:
    assert {result.verdict for result in judge_catalog(site, "shop").values()} == {Verdict.FAIL}
