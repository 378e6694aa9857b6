"""Replication and retention decide apart what a tier is to hold: whatever the first would still send, the second must
not have removed from where it is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.replication.policy import due_backups
from dr_pipelines.repository.catalog import Catalog, in_order
from dr_pipelines.repository.layout import BackupKind, WalLayout, label_for
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Expired, Marks
from dr_pipelines.retention.planner import OtherTier, kept_labels, plan_tier
from dr_pipelines.retention.view import TierView
from dr_pipelines.retention.wal import SystemWal, wal_among
from dr_pipelines.storage.base import ObjectInfo
from tests.support.archives import manifest

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MIB = 1 << 20
Send = Literal["everything", "monthly"]
BACKUPS = st.lists(
    st.tuples(
        st.integers(0, 90 * 24),  # hours ago
        st.sampled_from([False, False, True]),  # builds on the one before
        st.sampled_from(["whole", "whole", "damaged"]),
        st.sampled_from(["not there", "not there", "there", "damaged there", "let go there"]),
    ),
    max_size=12,
    unique_by=lambda one: one[0],
)
RULES = st.builds(
    RetentionPlan,
    daily=st.integers(0, 7),
    weekly=st.integers(0, 4),
    monthly=st.integers(0, 4),
    window=st.sampled_from([timedelta(hours=1), timedelta(days=2), timedelta(days=7)]),
)


def taken(hours_ago: int, number: int, parent: BackupManifest | None) -> BackupManifest:
    at, kind = NOW - timedelta(hours=hours_ago), BackupKind.INCREMENTAL if parent else BackupKind.FULL
    return manifest(
        label_for(at, kind), kind=kind, parent=parent.label if parent else None, started_at=at, finished_at=at,
        start_lsn=Lsn(number * MIB), stop_lsn=Lsn(number * MIB + 100),
    )  # fmt: skip


def wal() -> dict[str, SystemWal]:
    """All that any of them needs."""
    segments = (WalSegment(Timeline(1), number, MIB) for number in range(20))
    keys = [WalLayout("shop", "1").segment(segment, "a" * 64, ".zst") for segment in segments]
    return wal_among([ObjectInfo(key, 1, NOW) for key in keys], "shop", {"1": MIB}.get)


def view(
    tier: str, backups: Sequence[BackupManifest], damaged: set[str], gone: Sequence[BackupManifest] = ()
) -> TierView:
    marks = {one.label: Marks(damage=("a mark",) if one.label in damaged else ()) for one in backups}
    expired = tuple(Expired(one, NOW, "too old", b"") for one in gone)
    return TierView(tier, Catalog(tuple(backups), marks=marks, expired=expired), wal())


NOTHING = RetentionPlan(daily=0, weekly=0, monthly=0, window=timedelta(hours=1))


@settings(max_examples=200, deadline=None)
@given(BACKUPS, RULES, RULES, st.sampled_from(["everything", "monthly"]))
@example(  # the newest of a month that is over is damaged, so an older one is sent
    [(1, False, "whole", "not there"), (901, False, "damaged", "not there"), (902, False, "whole", "not there")],
    NOTHING,
    NOTHING,
    "monthly",
)
def test_what_replication_would_send_stays(
    history: list[tuple[int, bool, str, str]], here_rules: RetentionPlan, there_rules: RetentionPlan, send: Send
) -> None:
    backups: list[BackupManifest] = []
    states = sorted(history, key=lambda one: -one[0])
    for number, (hours_ago, builds_on, _, _) in enumerate(states):
        backups.append(taken(hours_ago, number, backups[-1] if builds_on and backups else None))
    damaged = {one.label for one, state in zip(backups, states, strict=True) if state[2] == "damaged"}
    there = [one for one, state in zip(backups, states, strict=True) if state[3] in ("there", "damaged there")]
    spoilt = {one.label for one, state in zip(backups, states, strict=True) if state[3] == "damaged there"}
    gone = [one for one, state in zip(backups, states, strict=True) if state[3] == "let go there"]
    source, target = view("primary", backups, damaged), view("secondary", there, spoilt, gone)
    due = due_backups(
        send, source.catalog, target.catalog, now=NOW, keeps=lambda held: kept_labels(in_order(held), there_rules, NOW)
    )
    other = OtherTier("secondary", send, there_rules, target)
    planned = plan_tier(source, here_rules, NOW, others=[other])
    assert {one.backup.label for one in due} <= {one.label for one in planned.decisions if one.keep}
