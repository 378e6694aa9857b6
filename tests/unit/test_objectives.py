"""What was measured against what was promised: losses by place, recovery times by what must be back first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.objectives.exposure import (
    STREAM,
    Exposure,
    NewestCommit,
    ServerPosition,
    stream_exposure,
    tier_exposure,
    unseen,
)
from dr_pipelines.objectives.judgement import Objective, judge_loss, judge_time, read
from dr_pipelines.objectives.promises import Promise, promises, systems_of
from dr_pipelines.objectives.recovery_time import RecoveryTimes, recovery_times, ways
from dr_pipelines.operations import objectives
from dr_pipelines.plan import Plan, load_plan
from dr_pipelines.plan.model import SystemPlan
from dr_pipelines.postgres.recovery_windows import RecoveryWindow, RestorePoint, SystemWindows
from dr_pipelines.repository.layout import BackupKind, label_for
from dr_pipelines.repository.validations import Validation, put_validation
from tests.support.estate import Estate
from tests.support.estate import plan as estate_plan

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
ONE, TWO = Timeline(1), Timeline(2)
END = Lsn(1 << 24)


def test_every_line_of_the_written_plan_is_there() -> None:
    """RTO and RPO as the company's plan has them."""
    told = {(one.table, one.name): one.promised for one in promises(load_plan(Path("dr_plan.yaml")))}
    assert told == {
        ("rpo", "transaction_data"): timedelta(0),
        ("rpo", "user_data"): 5 * MINUTE,
        ("rpo", "analytics_data"): HOUR,
        ("rpo", "reporting_data"): 4 * HOUR,
        ("rto", "database"): HOUR,
        ("rto", "api_services"): 2 * HOUR,
        ("rto", "user_auth"): 30 * MINUTE,
        ("rto", "admin_portal"): 4 * HOUR,
        ("rto", "reporting"): 8 * HOUR,
        ("rto", "analytics"): 12 * HOUR,
    }


def test_a_line_is_shown_with_one_server_and_found_by_each_that_it_rests_on() -> None:
    systems = {"all": {
        "one": {"rto": "1 hour", "server": "a"}, "two": {"rto": "1 hour", "server": "b"},
        "both": {"rto": "2 hours", "depends_on": ["two", "one"]}, "nobodys": {"rto": "1 hour"},
    }}  # fmt: skip
    plan = _plan(("a", "b"), systems=systems, data_classes={"lost": "1 hour"})
    assert {one.name: one.home(plan) for one in promises(plan)} == {
        "one": "a", "two": "b", "both": "a", "nobodys": "a", "lost": "a",
    }  # fmt: skip
    assert [one.name for one in promises(plan, "b")] == ["two", "both"]


def _plan(servers: Sequence[str] = ("shop",), **sections: Any) -> Plan:
    stores = {f"at-{name}": {"type": "local", "path": f"/{name}"} for name in servers}
    databases = {
        name: {
            "connection": {"host": name}, "schedule": {"full": "daily"}, "storage": {"primary": f"at-{name}"},
        }
        for name in servers
    }  # fmt: skip
    return Plan.model_validate(
        {"version": 1, "name": "test", "encryption": "none", "storage": stores, "databases": databases, **sections}
    )


# --- exposure -----------------------------------------------------------------------------------------------

BACKED_UP, STORED = NOW - 3 * HOUR, NOW - HOUR
HERE = ServerPosition(NOW - SECOND, "7", ONE, END, False, True, "streaming", "sync")


def system(end: Lsn = END, wal_end: Lsn = END, timeline: Timeline = ONE) -> SystemWindows:
    """A full three hours ago, and WAL up to `end` of an hour ago."""
    point = RestorePoint(label_for(BACKED_UP, BackupKind.FULL), BackupKind.FULL, Lsn(1), BACKED_UP + MINUTE)
    window = RecoveryWindow(timeline, Lsn(1), end, point.at, STORED, (point,))
    return SystemWindows("7", (window,), wal_end=wal_end)


def on_tier(held: SystemWindows | None, position: ServerPosition | None = HERE, **more: Any) -> Exposure:
    return tier_exposure("primary", held, position, seen_at=NOW, **more)


def test_an_idle_server_whose_tier_holds_everything_loses_nothing_but_the_look() -> None:
    """Its last commit is hours old."""
    found = on_tier(system())
    assert (found.seconds, found.recoverable_until) == (1.0, HERE.asked_at)
    assert found.within(SECOND) is Verdict.PASS
    assert found.within(timedelta(0)) is not Verdict.PASS  # that is never said of a tier


@pytest.mark.parametrize(
    "held, position",
    [
        (system(), replace(HERE, lsn=END + 1)),
        (system(), replace(HERE, timeline=TWO)),  # promoted: as many bytes, of another history
        (system(wal_end=END + 100), HERE),  # WAL goes on behind a gap
        (system(), None),
    ],
)
def test_a_tier_that_is_behind_loses_what_came_after_its_newest_commit(
    held: SystemWindows, position: ServerPosition | None
) -> None:
    found = on_tier(held, position, commit=NewestCommit(True, NOW - 2 * HOUR))
    assert (found.seconds, found.at_least) == (7200, 7200)
    ahead = on_tier(held, position, commit=NewestCommit(True, NOW + DAY))
    assert ahead.seconds == 3600  # a server's clock that is ahead: the commit was there when its WAL was stored
    quiet = on_tier(held, position, commit=NewestCommit(True))
    assert quiet.seconds == 10800  # the backup holds all from before it began


def test_where_wal_cannot_be_read_the_loss_lies_between_backup_and_storing() -> None:
    found = on_tier(system(), None, commit=NewestCommit(False, why="no key"))
    assert (found.at_least, found.seconds) == (3600, 10800)
    verdicts = [found.within(promised) for promised in (30 * MINUTE, 2 * HOUR, 3 * HOUR)]
    assert verdicts == [Verdict.FAIL, Verdict.NOT_PROVEN, Verdict.PASS]


def test_what_cannot_be_restored_is_lost_whole() -> None:
    for held in (None, SystemWindows("7", ()), replace(system(), system_id="8")):
        found = on_tier(held)
        assert found.seen and found.within(365 * DAY) is Verdict.FAIL


def on_stream(position: ServerPosition | None = HERE, gap: str | None = None, held: bool = True) -> Exposure:
    return stream_exposure(position, [None, system() if held else None], slot="dr_shop", gap=gap, why="it is away")


@pytest.mark.parametrize(
    "found, why",
    [
        (on_stream(replace(HERE, sync_state="async")), "is async"),
        (on_stream(replace(HERE, sync_state="potential")), "is potential"),
        (on_stream(replace(HERE, state="catchup")), "catchup"),
        (on_stream(replace(HERE, state=None, sync_state=None)), "pg_monitor"),
        (on_stream(replace(HERE, connected=False)), "no stream dr_shop"),
        (on_stream(replace(HERE, synchronous_commit="local")), "synchronous_commit is local"),
        (on_stream(replace(HERE, in_recovery=True)), "standby"),
        (on_stream(replace(HERE, timeline=TWO)), "no tier can be restored"),
        (on_stream(gap="a slot was lost"), "a slot was lost"),
        (on_stream(held=False), "no tier can be restored"),
        (on_stream(None), "it is away"),
    ],
)
def test_nothing_lost_is_claimed_for_no_less_than_synchronous(found: Exposure, why: str) -> None:
    assert found.seconds is None and why in found.how
    assert found.within(timedelta(0)) is not Verdict.PASS


def test_nothing_lost_is_claimed_while_commits_wait() -> None:
    for state in ("sync", "quorum"):
        found = on_stream(replace(HERE, sync_state=state))
        assert (found.seconds, found.within(timedelta(0))) == (0.0, Verdict.PASS)


# --- RPO ----------------------------------------------------------------------------------------------------

NONE = Promise("rpo", "orders", "data_classes.orders", timedelta(0), "shop", ("shop",))
FIVE = replace(NONE, name="users", promised=5 * MINUTE)
CLAIMED = Exposure(STREAM, 0.0, 0.0, "commits wait")
UNCLAIMED = Exposure(STREAM, None, 0.0, "not claimed: async")


def tier(name: str, seconds: float, at_least: float | None = None) -> Exposure:
    return Exposure(name, seconds, seconds if at_least is None else at_least, "as seen")


def test_the_stream_alone_keeps_a_promise_to_lose_nothing() -> None:
    behind = tier("primary", 4000.0)
    kept = judge_loss(NONE, [CLAIMED, behind])
    assert (kept.verdict, kept.measured, kept.margin) == (Verdict.PASS, 0.0, 0.0)
    assert "1 hour 6 minutes 40 seconds would be lost on primary" in kept.summary
    # A host that is lost with its server helps no other promise.
    assert judge_loss(FIVE, [CLAIMED, behind]).verdict is Verdict.FAIL
    broken = judge_loss(NONE, [UNCLAIMED, tier("primary", 0.5)])
    assert (broken.verdict, broken.measured) == (Verdict.FAIL, 0.5)
    unasked = judge_loss(NONE, [unseen(STREAM, "away"), tier("primary", 0.5)])
    assert (unasked.verdict, unasked.measured) == (Verdict.NOT_PROVEN, 0.5)


def test_the_tier_with_the_least_loss_counts() -> None:
    found = judge_loss(FIVE, [UNCLAIMED, unseen("primary", "away"), tier("archive", 9e5), tier("secondary", 200.0)])
    assert (found.verdict, found.measured, found.margin) == (Verdict.PASS, 200.0, 100.0)
    assert read(found) == ("5 minutes", "3 minutes 20 seconds", "1 minute 40 seconds")
    assert found.check.details["rpo_exposure_seconds_archive"] == 9e5
    blind = judge_loss(FIVE, [UNCLAIMED, unseen("primary", "away"), unseen("secondary", "away")])
    assert (blind.verdict, read(blind)[1]) == (Verdict.NOT_PROVEN, "not seen")
    vague = judge_loss(FIVE, [UNCLAIMED, tier("primary", 400.0, at_least=100.0)])
    assert vague.verdict is Verdict.NOT_PROVEN
    late = judge_loss(FIVE, [UNCLAIMED, tier("primary", 400.0)])
    assert (late.verdict, read(late)[2]) == (Verdict.FAIL, "-1 minute 40 seconds")
    assert late.hint is not None and "dr status" in late.hint


def test_what_nobody_measures_is_a_failure() -> None:
    for promise in (replace(FIVE, server=None), replace(FIVE, file_sets=("uploads",))):
        found = judge_loss(promise, [CLAIMED, tier("primary", 1.0)])
        assert found.verdict is Verdict.FAIL and read(found)[1:] == ("never measured", "-")


# --- RTO ----------------------------------------------------------------------------------------------------


def validation(days_ago: float, seconds: float, tier: str = "primary", **changes: Any) -> Validation:
    at = NOW - days_ago * DAY
    label = label_for(at, BackupKind.FULL)
    seen = Validation(
        server="shop", label=label, chain=(label,), tier=tier, at=at, run="test", verdict=Verdict.PASS, summary="good",
        phases={"fetch": seconds - 1, "replay": 1.0, "recall": 9e9, "validate": 9e9}, bytes=1000, wal_bytes=0,
        reached=Lsn(1),
    )  # fmt: skip
    return seen.model_copy(update=changes)


def times(*seen: Validation, server: str = "shop", unread: dict[str, str] | None = None) -> RecoveryTimes:
    return recovery_times(server, seen, ("primary", "secondary"), within=2 * DAY, now=NOW, unread=unread)


def judged(systems: dict[str, Any], name: str, **measured: RecoveryTimes) -> Objective:
    plan = _plan(tuple(measured), systems={"all": systems})
    promise = next(one for one in promises(plan) if one.name == name)
    return judge_time(promise, systems_of(plan), measured, NOW)


DATABASE = {"database": {"rto": "1 minute", "server": "shop"}}


def test_the_slowest_of_the_latest_restores_counts() -> None:
    old = [validation(20 + day, 500) for day in range(3)]
    recent = [validation(day, 30 + day) for day in range(5)]
    elsewhere = [validation(1, 40, "secondary"), validation(1, 7000, "archive")]
    found = judged(DATABASE, "database", shop=times(*old, *recent, *elsewhere))
    assert (found.verdict, found.measured, found.margin) == (Verdict.PASS, 40, 20)
    assert found.check.details["rto_seconds_shop_archive"] == 7000  # shown, and no part of the promise
    slow = judged(DATABASE, "database", shop=times(*recent, validation(0.5, 61, "secondary")))
    assert (slow.verdict, slow.measured) == (Verdict.FAIL, 61)


def test_a_restore_that_failed_measures_nothing() -> None:
    spoilt = {"verdict": Verdict.FAIL, "summary": "rows are missing"}
    never = judged(DATABASE, "database", shop=times(validation(1, 5, **spoilt), validation(1, 5, reached=None)))
    assert never.verdict is Verdict.FAIL and read(never)[1] == "never measured"
    after = judged(DATABASE, "database", shop=times(validation(1, 5), validation(0, 3, **spoilt)))
    assert (after.verdict, after.measured) == (Verdict.NOT_PROVEN, 5)
    assert "rows are missing" in after.summary


def test_a_restore_that_could_not_be_tried_takes_nothing_back() -> None:
    unseen = {"verdict": Verdict.NOT_PROVEN, "summary": "no identity is given", "reached": None}
    found = judged(DATABASE, "database", shop=times(validation(1, 5), validation(0, 3, **unseen)))
    assert (found.verdict, found.measured) == (Verdict.PASS, 5)


def test_a_margin_is_as_exact_as_what_was_measured() -> None:
    broken = judged(DATABASE, "database", shop=times(validation(1, 72.6)))
    assert read(broken)[1:] == ("1 minute 13 seconds", "-13 s")


def test_an_old_measurement_proves_nothing() -> None:
    assert judged(DATABASE, "database", shop=times(validation(1.9, 5))).verdict is Verdict.PASS
    old = judged(DATABASE, "database", shop=times(validation(2.1, 5)))
    assert old.verdict is Verdict.NOT_PROVEN and "since 2026-03-10 09:36 UTC" in old.summary


def test_evidence_that_cannot_be_read_is_not_called_missing() -> None:
    found = judged(DATABASE, "database", shop=times(unread={"primary": "away"}))
    assert found.verdict is Verdict.NOT_PROVEN and read(found)[1] == "not seen"


def test_what_it_depends_on_must_be_back_first() -> None:
    measured = {
        "a": times(validation(1, 10), server="a"),
        "b": times(validation(1, 200), server="b"),
        "c": times(validation(1, 30), server="c"),
    }
    systems = {
        "base": {"rto": "1 day", "server": "a"}, "other": {"rto": "1 day", "server": "b"},
        "middle": {"rto": "1 day", "server": "c", "depends_on": ["base", "other"]},
        "top": {"rto": "1 day", "server": "a", "depends_on": ["middle", "base"]},
        "page": {"rto": "1 day", "depends_on": ["base"]},
    }  # fmt: skip
    assert judged(systems, "middle", **measured).measured == 230
    # The longest way: b, c, then its own server a. On the way over base, a is restored once.
    assert judged(systems, "top", **measured).measured == 240
    page = judged(systems, "page", **measured)
    assert page.verdict is Verdict.FAIL and "what was measured of what it needs takes 10 s" in page.summary
    models = {name: SystemPlan.model_validate(one) for name, one in systems.items()}
    assert sorted(way.servers for way in ways(models, "top")) == [("a",), ("a", "c"), ("b", "c", "a")]


def test_a_promise_that_growth_will_break_is_foretold() -> None:
    growing = [validation(day, 40 - 2 * day) for day in range(6)]
    found = judged(DATABASE, "database", shop=times(*growing))
    assert found.verdict is Verdict.PASS
    assert found.breaks_at == NOW + 10 * DAY  # 20 s are left, and 2 s a day are used up
    assert found.forecast == "at this growth it breaks on 2026-03-20"
    few = judged(DATABASE, "database", shop=times(*growing[:4]))
    assert few.breaks_at is None and "growth cannot be told yet" in str(few.forecast)
    noise = [validation(day, 30 + (7, -5, 3, -6, 4, 0)[day]) for day in range(6)]
    assert judged(DATABASE, "database", shop=times(*noise)).forecast == "no growth that would break it within ten years"


# --- together -----------------------------------------------------------------------------------------------


def test_of_a_site_whose_server_does_not_answer_the_stores_speak() -> None:
    """Its WAL cannot be read either: the exposure lies between the time of storing and the backup's."""
    given = estate_plan(connection={"host": "127.0.0.1", "port": 1})
    data = {"near": {"rpo": "1 hour", "server": "shop"}, "far": {"rpo": "9 hours", "server": "shop"}}
    systems = {"all": {"database": {"rto": "1 minute", "server": "shop"}}}
    document = given.model_dump(mode="json") | {"data_classes": data, "systems": systems}
    estate = Estate()
    site = estate.site(Plan.model_validate(document))
    nothing = objectives(site).lines
    assert [line.verdict for line in nothing] == [Verdict.FAIL] * 3
    assert [read(line)[1] for line in nothing] == ["everything", "everything", "never measured"]

    estate.back_up()
    estate.work(2, 6)
    at = estate.clock.now()
    estate.clock.advance(4 * HOUR)
    put_validation(estate.store, validation(0, 30, at=estate.clock.now()))
    near, far, database = objectives(site).lines
    assert (near.verdict, far.verdict, database.verdict) == (Verdict.FAIL, Verdict.PASS, Verdict.PASS)
    assert (near.measured, near.at_least) == (7 * 3600, 4 * 3600)
    assert f"{at:%H:%M:%S} UTC" in near.summary
    assert database.measured == 30
