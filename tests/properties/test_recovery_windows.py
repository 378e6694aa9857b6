"""Recovery windows against the restore planner: what one shows is what the other has a way to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.recovery_windows import RecoveryWindow, SystemWal, SystemWindows, recovery_windows
from dr_pipelines.postgres.restore_plan import RecoveryTarget, Switch, WalSpan, plan_restore
from dr_pipelines.postgres.wal_tiers import joined
from dr_pipelines.repository.catalog import Catalog, in_order
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from tests.support.archives import manifest

SIZE = 4
"""Of a segment, in bytes: a history is a few dozen positions long, and every one is asked for."""
END = 40


@dataclass(frozen=True)
class Past:
    """A server's past on one tier."""

    catalog: Catalog
    spans: Sequence[WalSpan]
    histories: Mapping[Timeline, Switch]

    @property
    def timelines(self) -> set[Timeline]:
        return (
            {span.timeline for span in self.spans}
            | {made.timeline for made in self.catalog.backups}
            | {*self.histories}
        )

    def windows(self) -> SystemWindows:
        return recovery_windows(self.catalog, "1", SystemWal(SIZE, self.spans, self.histories))

    def accepts(self, lsn: int, timeline: Timeline) -> bool:
        try:
            target = RecoveryTarget("lsn", Lsn(lsn), timeline=timeline)
            plan_restore(self.catalog.usable, self.spans, self.histories, target)
        except DrError:
            return False
        return True


def _within(lsn: int, windows: Sequence[RecoveryWindow]) -> bool:
    return any(window.start <= Lsn(lsn) <= window.end for window in windows)


@st.composite
def _switches(draw: st.DrawFn) -> dict[Timeline, Switch]:
    """Each timeline but the first leaves an older one, after that one began."""
    found: dict[Timeline, Switch] = {}
    for number in range(2, draw(st.integers(1, 4)) + 1):
        parent = Timeline(draw(st.integers(1, number - 1)))
        since = found[parent].at.value if parent in found else 1
        found[Timeline(number)] = Switch(parent, Lsn(draw(st.integers(since, END - 1))))
    return found


@st.composite
def _backups(draw: st.DrawFn, timelines: int) -> Catalog:
    made: list[BackupManifest] = []
    marks: dict[str, Marks] = {}
    for number in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, END - 2))
        parent = draw(st.sampled_from([None, *made]))
        kind = BackupKind.INCREMENTAL if parent else BackupKind.FULL
        made.append(
            manifest(
                f"b{number}", kind=kind, parent=parent.label if parent else None,
                timeline=Timeline(draw(st.integers(1, timelines))),
                start_lsn=Lsn(start), stop_lsn=Lsn(draw(st.integers(start, min(END, start + 6)))),
            )
        )  # fmt: skip
        if draw(st.integers(0, 4)) == 0:
            marks[f"b{number}"] = Marks(damage=("mark",))
    left_out = draw(st.sampled_from([None, *made]))
    return Catalog(tuple(in_order(backup for backup in made if backup is not left_out)), marks=marks)


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """WAL with holes, backups with damage and lost parents, timelines that leave each other anywhere."""
    histories = draw(_switches())
    spans = [
        WalSpan(Timeline(number), Lsn(first * SIZE), Lsn(end))
        for number in range(1, len(histories) + 2)
        for first, end in draw(st.lists(st.tuples(st.integers(0, END // SIZE), st.integers(1, END)), max_size=4))
        if first * SIZE < end
    ]
    known = {line: switch for line, switch in histories.items() if draw(st.integers(0, 5)) > 0}
    return Past(draw(_backups(len(histories) + 1)), joined(spans), known)


@settings(max_examples=150, deadline=None)
@given(pasts())
def test_a_window_is_what_the_planner_has_a_way_to(past: Past) -> None:
    found = past.windows()
    for window in (*found.windows, *found.branches):
        for lsn in range(window.start.value, window.end.value + 1):
            assert past.accepts(lsn, window.timeline), f"{lsn} of {window}"
    reached = (*found.windows, *found.branches)
    for timeline in past.timelines:
        for lsn in range(END + 2):
            if past.accepts(lsn, timeline):
                assert _within(lsn, reached), f"{lsn} on {timeline} is in no window"
    for lsn in range(END + 2) if found.windows else ():
        assert past.accepts(lsn, found.windows[0].timeline) == _within(lsn, found.windows)


@settings(max_examples=100, deadline=None)
@given(pasts())
def test_windows_and_gaps_alternate_and_every_backup_is_accounted_for(past: Past) -> None:
    found = past.windows()
    for before, after in zip(found.windows, found.windows[1:], strict=False):
        assert before.end < after.start
        assert any(gap.start == before.end and gap.end == after.start and gap.why for gap in found.gaps)
    labels = {point.label for point in found.points}
    assert labels | set(found.unusable) == {backup.label for backup in past.catalog.backups}
    assert not labels & set(found.unusable)
    for gap in found.gaps:
        for hole in gap.missing:
            assert gap.start <= hole.start < hole.end
            on_main = [span for span in past.spans if span.timeline == found.windows[0].timeline]
            assert not any(span.start < hole.end and hole.start < span.end for span in on_main)


@st.composite
def promotions(draw: st.DrawFn) -> Past:
    """All WAL of every timeline is there, from the segment in which it began."""
    histories = draw(_switches())
    spans = []
    for number in range(1, len(histories) + 2):
        timeline = Timeline(number)
        begin = histories[timeline].at.value if timeline in histories else 0
        children = [switch.at.value for switch in histories.values() if switch.parent == timeline]
        end = draw(st.integers(min(END, max([begin, *children]) + 1), END))
        spans.append(WalSpan(timeline, Lsn(begin // SIZE * SIZE), Lsn(end)))
    return Past(draw(_backups(len(histories) + 1)), spans, histories)


@settings(max_examples=150, deadline=None)
@given(promotions())
def test_what_is_assumed_without_a_key_is_reachable_with_one(past: Past) -> None:
    """A backup lies on its timeline after that began; of those, nothing is promised that the histories deny."""
    sound = tuple(
        backup
        for backup in past.catalog.backups
        if backup.timeline not in past.histories or backup.start_lsn >= past.histories[backup.timeline].at
    )
    past = replace(past, catalog=replace(past.catalog, backups=sound))
    blind = SystemWal(SIZE, past.spans, {}, unreadable=frozenset(past.histories))
    found = recovery_windows(past.catalog, "1", blind)
    for window in (*found.windows, *found.branches):
        for lsn in range(window.start.value, window.end.value + 1):
            assert past.accepts(lsn, window.timeline), f"{lsn} of {window}"


@pytest.mark.parametrize("further", [0, 1])
def test_a_timeline_that_goes_on_is_nobodys_certain_parent(further: int) -> None:
    one = WalSpan(Timeline(1), Lsn(0), Lsn(9 + further * SIZE))
    two = WalSpan(Timeline(2), Lsn(8), Lsn(20))
    backup = manifest("b0", start_lsn=Lsn(1), stop_lsn=Lsn(2))
    blind = SystemWal(SIZE, [one, two], {}, unreadable=frozenset({Timeline(2)}))
    found = recovery_windows(Catalog((backup,)), "1", blind)
    if further:
        assert [window.end for window in found.windows] == [one.end]
        assert any("history of timeline 2 cannot be read" in note for note in found.notes)
    else:
        assert [(window.end, window.assumed) for window in found.windows] == [(Lsn(20), (Timeline(2),))]
