"""What is restored to prove it, when, from which tier; and when that is late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dr_pipelines.checks import Verdict
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind, ProofName, label_for
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from dr_pipelines.validation.due import SeenTier, due_validations, fulls_are_proven_in_time, is_chosen, next_tier
from tests.support.archives import AT, manifest

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PLAN = ValidationPlan()
Proofs = Mapping[str, Sequence[ProofName]]


def full(day: int) -> BackupManifest:
    at = AT + day * DAY
    return manifest(label_for(at, BackupKind.FULL), started_at=at, finished_at=at)


def incremental(number: int, parent: BackupManifest) -> BackupManifest:
    at, kind = parent.started_at + number * HOUR, BackupKind.INCREMENTAL
    return manifest(label_for(at, kind), kind=kind, parent=parent.label, started_at=at, finished_at=at)


FULLS = [full(day) for day in range(12)]
NEWEST = FULLS[-1]
NOW = NEWEST.finished_at + HOUR


def proof(verdict: str, at: datetime, kind: str = "validate") -> ProofName:
    return ProofName(kind, at, verdict)


def tier(
    name: str, backups: Sequence[BackupManifest], proofs: Proofs | None = None, *, all_sent: bool = True
) -> SeenTier:
    marks = {backup.label: Marks(proofs=tuple((proofs or {}).get(backup.label, ()))) for backup in backups}
    return SeenTier(name, Catalog(tuple(backups), marks=marks), all_sent)


def passed_daily(backups: Sequence[BackupManifest]) -> Proofs:
    return {backup.label: [proof("pass", backup.finished_at + HOUR)] for backup in backups}


def due(*tiers: SeenTier, now: datetime = NOW) -> list[tuple[str, str, bool]]:
    return [(one.backup.label, one.tier, one.is_there) for one in due_validations(tiers, PLAN, now)]


def test_the_newest_full_first_and_nothing_of_long_ago() -> None:
    found = [label for label, _, _ in due(tier("primary", FULLS))]
    assert found == [one.label for one in reversed(FULLS) if NOW - one.finished_at <= timedelta(days=7)]
    assert [label for label, _, _ in due(tier("primary", FULLS[:1]))] == [FULLS[0].label]  # but the newest always


def test_what_was_proven_or_found_bad_is_not_restored_again() -> None:
    for verdict in ("pass", "fail"):
        here = tier("primary", [NEWEST], {NEWEST.label: [proof(verdict, NOW)]})
        assert not due(here, now=NOW + DAY)
    repaired = [proof("fail", NOW), proof("pass", NOW + HOUR, "scrub")]
    assert due(tier("primary", [NEWEST], {NEWEST.label: repaired}), now=NOW + DAY) == [(NEWEST.label, "primary", True)]
    again = [*repaired, proof("fail", NOW + 2 * HOUR)]
    assert not due(tier("primary", [NEWEST], {NEWEST.label: again}), now=NOW + DAY)


def test_what_could_not_be_looked_at_is_tried_again_later_and_not_for_ever() -> None:
    def tried(times: int, hours_ago: float) -> bool:
        last = NOW - timedelta(hours=hours_ago)
        proofs = [proof("not-proven", last - number * HOUR) for number in range(times)]
        return bool(due(tier("primary", [NEWEST], {NEWEST.label: proofs})))

    assert [tried(1, 0.5), tried(1, 1), tried(2, 3), tried(2, 4), tried(3, 20)] == [False, True, False, True, False]


def test_the_tiers_take_turns_and_a_copy_is_waited_for() -> None:
    before = FULLS[:-1]
    primary = tier("primary", FULLS, passed_daily(before))
    assert due(primary, tier("secondary", before)) == [(NEWEST.label, "secondary", False)]
    assert due(primary, tier("secondary", FULLS)) == [(NEWEST.label, "secondary", True)]
    # What is not sent there is not waited for; nor is what is late by half of the time.
    assert due(primary, tier("archive", before, all_sent=False)) == [(NEWEST.label, "primary", True)]
    late = NEWEST.finished_at + 13 * HOUR
    assert due(primary, tier("secondary", before), now=late) == [(NEWEST.label, "primary", True)]
    both = due(tier("primary", FULLS[-2:]), tier("secondary", FULLS[-2:]))
    assert [where for _, where, _ in both] == ["primary", "secondary"]
    found = next_tier([primary, tier("secondary", before)], NEWEST)
    assert found is not None and found.tier == "primary"


def test_a_share_of_the_incrementals_always_the_same() -> None:
    hours = [incremental(number, FULLS[0]) for number in range(1, 2000)]
    chosen = [one for one in hours if is_chosen(one, PLAN)]
    assert 60 < len(chosen) < 140  # 5 %
    assert not [one for one in chosen if not is_chosen(one, ValidationPlan(incrementals="20 %"))]
    assert all(is_chosen(one, ValidationPlan(incrementals="100 %")) for one in hours)
    old, young = chosen[0], chosen[-1]
    here = tier("primary", [FULLS[0], old, young], {FULLS[0].label: [proof("pass", NOW)]})
    assert due(here, now=young.finished_at + HOUR) == [(young.label, "primary", True)]


def test_fulls_that_are_not_proven_in_time_are_an_alarm() -> None:
    def said(*tiers: SeenTier, now: datetime = NOW, unread: Sequence[str] = ()) -> tuple[Verdict, str]:
        result = fulls_are_proven_in_time(tiers, PLAN, now, unread)
        return result.verdict, result.summary

    older = FULLS[:-1]
    assert said(tier("primary", FULLS, passed_daily(older)))[0] is Verdict.PASS  # the newest has until tomorrow
    verdict, summary = said(tier("primary", FULLS, passed_daily(older)), now=NOW + DAY)
    assert verdict is Verdict.FAIL and f"{NEWEST.label} was not proven by a restore within 1 day" in summary
    unseen = {**passed_daily(older), NEWEST.label: [proof("not-proven", NOW)]}
    assert said(tier("primary", FULLS, unseen), now=NOW + DAY)[0] is Verdict.FAIL
    elsewhere = tier("secondary", FULLS, passed_daily(FULLS))
    assert said(tier("primary", FULLS), elsewhere, now=NOW + DAY)[0] is Verdict.PASS
    bad = {**passed_daily(older), NEWEST.label: [proof("fail", NOW)]}
    assert said(tier("primary", FULLS, bad)) == (Verdict.FAIL, f"a restore of {NEWEST.label} failed")
    assert said(tier("primary", FULLS), now=NOW + DAY, unread=["secondary is down"])[0] is Verdict.NOT_PROVEN
    assert said(tier("primary", []))[0] is Verdict.NOT_PROVEN
