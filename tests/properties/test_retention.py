"""Whatever happened to a server: no pass of retention takes away what the plan promises, and what is not needed goes.

The judge is the restore's own planner over what is left. Design, invariants 3, 11 and 12.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.storage.memory import MemoryStore
from tests.support.estate import RULES, SEGMENT, SERVER, Estate, Instant, Judge, contents, plan
from tests.support.faulty_store import FaultyStore

DAY = timedelta(days=1)
WINDOW, GRACE, IN_FLIGHT = 2 * DAY, DAY, 2 * DAY
LONGER = {"secondary": {"daily": 5}}
"""The secondary keeps more days than the primary."""

STEPS = (
    "work", "full", "full", "incremental", "incremental", "crash", "damage", "promote", "pitr", "anew", "replicate",
    "keep", "release", "apply", "apply", "apply", "apply secondary", "secondary down", "jump", "mistake",
)  # fmt: skip
HISTORIES = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(1, 30), st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=30
)


def period_starts(name: str, at: datetime) -> Any:
    return {"daily": at.date(), "weekly": at.isocalendar()[:2], "monthly": (at.year, at.month)}[name]


def promised_fulls(backups: Iterable[BackupManifest], judge: Judge, rules: dict[str, int]) -> set[str]:
    """The newest restorable full of each of the last days, weeks and months, and the newest at all."""
    fulls = [one for one in backups if one.kind is BackupKind.FULL and judge.restores(one)]
    fulls.sort(key=lambda full: full.started_at)
    promised = {full.label for full in fulls[-1:]}
    for name, count in rules.items():
        newest: dict[Any, str] = {}
        for full in fulls:
            newest[period_starts(name, full.started_at)] = full.label
        promised |= set(list(newest.values())[len(newest) - count :]) if count else set()
    return promised


class World:
    """An estate, its plan, and what the plan promises of it."""

    def __init__(self, lock_days: int, two_tiers: bool) -> None:
        self.estate = Estate(lock_days=lock_days)
        self.tiers = ("primary", "secondary") if two_tiers else ("primary",)
        self.kept: set[str] = set()

    def plan(self, **changes: Any) -> Plan:
        more = {"tiers": LONGER} if len(self.tiers) > 1 else {}
        return plan({**RULES, **more, **changes}, self.tiers)

    # --- promises ---

    def promises(self, store: MemoryStore, daily: int = 2) -> tuple[set[Instant], set[str]]:
        """Instants of the window, and labels, that can be restored now and must stay so."""
        estate = self.estate
        judge, now = estate.judge(store), estate.clock.now()
        instants = {i for i in estate.instants if i.at >= now - WINDOW and judge.reaches(i)}
        backups = estate.manifests(store)
        labels = promised_fulls(backups, judge, {"daily": daily, "weekly": 1, "monthly": 1})
        labels |= {one.label for one in backups if one.label in self.kept and judge.restores(one)}
        if store is estate.store and len(self.tiers) > 1:
            labels |= self._due_on_secondary(backups, judge)
        return instants, labels

    def _due_on_secondary(self, backups: list[BackupManifest], judge: Judge) -> set[str]:
        there = self.estate.judge(self.estate.secondary)
        held = {one.label for one in self.estate.manifests(self.estate.secondary) if there.restores(one)}
        return promised_fulls(backups, judge, {"daily": 5, "weekly": 1, "monthly": 1}) - held

    def require(self, store: MemoryStore, promised: tuple[set[Instant], set[str]]) -> None:
        judge, backups = self.estate.judge(store), self.estate.manifests(store)
        lost = [instant for instant in promised[0] if not judge.reaches(instant)]
        assert not lost, f"lost instants: {lost}"
        there = {one.label for one in backups if judge.restores(one)}
        assert promised[1] <= there, f"lost backups: {promised[1] - there}"

    # --- passes ---

    def apply(self, tier: str = "primary", **changes: Any) -> operations.RetentionReport:
        store = self.estate.store if tier == "primary" else self.estate.secondary
        promised = self.promises(store, daily=2 if tier == "primary" else 5)
        orphans = self._orphans(store)
        report = operations.apply_retention(self.estate.site(self.plan(**changes)), SERVER, tier, Silent(), yes=True)
        self.require(store, promised)
        assert self._orphans(store) <= orphans
        return report

    def _orphans(self, store: MemoryStore) -> set[str]:
        backups = self.estate.manifests(store)
        labels = {one.label for one in backups}
        return {one.label for one in backups if one.parent is not None and one.parent not in labels}

    def apply_with_secondary_down(self) -> None:
        store = self.estate.store
        promised, down = self.promises(store), FaultyStore(self.estate.secondary, fail_at=1, stays_down=True)
        site = self.estate.site(self.plan(), secondary=down)
        held_nothing = promised_fulls(
            self.estate.manifests(), self.estate.judge(), {"daily": 5, "weekly": 1, "monthly": 1}
        )
        operations.apply_retention(site, SERVER, "primary", Silent(), yes=True)
        # Nobody knows what is there, so everything that is due there stays.
        self.require(store, (promised[0], promised[1] | (held_nothing if len(self.tiers) > 1 else set())))

    def apply_with_a_wrong_clock(self, days: int) -> None:
        before = contents(self.estate.store)
        wrong = FixedClock(self.estate.clock.now() + days * DAY)
        site = self.estate.site(self.plan(), clock=wrong)
        report = operations.apply_retention(site, SERVER, "primary", Silent(), yes=True)
        assert "clock" in {guard.name for guard in report.table.guards}
        assert contents(self.estate.store) == before

    def apply_by_mistake(self) -> None:
        """A plan that keeps nearly nothing; within the grace that is undone, and all is as it was."""
        self.apply()
        estate, store = self.estate, self.estate.store
        judge = estate.judge()
        labels = {one.label for one in estate.manifests() if judge.restores(one)}
        instants = self.promises(store)[0]
        wrong = plan({**RULES, "daily": 1, "weekly": 0, "monthly": 0, "window": "1 hour"}, self.tiers)
        operations.apply_retention(estate.site(wrong), SERVER, "primary", Silent(), yes=True)
        estate.clock.advance(GRACE - timedelta(hours=1))
        operations.apply_retention(estate.site(wrong), SERVER, "primary", Silent(), yes=True)
        if operations.list_backups(estate.site(self.plan()), SERVER).expired:
            operations.undo_expiry(estate.site(self.plan()), SERVER, "primary")
        self.require(store, (instants, labels))

    # --- what happens ---

    def step(self, name: str, hours: int, first: int, second: int) -> None:
        estate = self.estate
        estate.work(hours, first)
        backups = estate.manifests()
        here = [one for one in backups if (one.system_id, one.timeline) == (estate.system_id, estate.timeline)]
        here.sort(key=lambda one: one.stop_lsn)
        some = backups[(first * 10 + second) % len(backups)] if backups else None
        two_tiers = len(self.tiers) > 1
        if name == "full":
            estate.back_up()
        elif name == "incremental" and here:
            estate.back_up(here[-1])
        elif name == "crash":
            estate.crash()
        elif name == "damage" and some is not None:
            estate.damage(some)
        elif name == "promote":
            estate.promote()
        elif name == "pitr":
            estate.promote(estate.instants[-1 - (first * 10 + second) % min(len(estate.instants), 60)])
        elif name == "anew":
            estate.make_anew()
        elif name == "replicate" and two_tiers:
            estate.replicate()
        elif name == "keep" and some is not None:
            operations.keep_backup(estate.site(self.plan()), SERVER, some.label, until=None, reason="wanted", by="me")
            self.kept.add(some.label)
        elif name == "release":
            self.release()
        elif name == "apply":
            self.apply()
        elif name == "apply secondary" and two_tiers:
            self.apply("secondary")
        elif name == "secondary down" and two_tiers:
            self.apply_with_secondary_down()
        elif name == "jump":
            self.apply_with_a_wrong_clock(second - 10 if first % 2 else second + 1)
        elif name == "mistake":
            self.apply_by_mistake()

    # --- what is not needed goes ---

    def release(self) -> None:
        for label in self.kept:
            operations.release_backup(self.estate.site(self.plan()), SERVER, label)
        self.kept = set()

    def calm_days(self, count: int, *, replicated: bool = True) -> None:
        for _ in range(count):
            self.estate.work(5, 3)
            self.estate.back_up(self.estate.back_up())
            self.estate.work(16, 2)
            if len(self.tiers) > 1 and replicated:
                self.estate.replicate()
            report = self.apply()
            assert not report.table.guards

    def require_little(self) -> None:
        estate, now = self.estate, self.estate.clock.now()
        judge, backups = estate.judge(), estate.manifests()
        wanted = promised_fulls(backups, judge, {"daily": 2, "weekly": 1, "monthly": 1})
        if len(self.tiers) > 1:
            wanted |= self._due_on_secondary(backups, judge)
        # With which the window began a day ago, so that one pass may have come before it moved.
        bases = [
            one for one in backups if one.finished_at <= now - WINDOW - DAY and not one.parent and judge.restores(one)
        ]
        base = max(bases, key=lambda one: one.finished_at, default=None)
        recent = {one.label for one in backups if base is None or one.finished_at >= base.finished_at}
        assert {one.label for one in backups} <= wanted | recent
        self._require_little_else(backups, base)

    def _require_little_else(self, backups: list[BackupManifest], base: BackupManifest | None) -> None:
        now = self.estate.clock.now()
        labels = {one.label for one in backups}
        waiting = {
            gone.manifest.label for gone in operations.list_backups(self.estate.site(self.plan()), SERVER).expired
        }
        roots = {one.label: one for one in backups}
        for info in self.estate.store.list("servers/"):
            if info.modified > now - IN_FLIGHT - WINDOW - GRACE - 2 * DAY:
                continue
            if "/backups/" in info.key:
                assert info.key.split("/")[3] in labels | waiting, info.key
            elif not info.key.endswith(("wal.json", ".zst")) or ".history." in info.key:
                continue
            else:
                assert self._is_of_a_backup(info.key, backups, roots) or base is None, info.key

    def _is_of_a_backup(self, key: str, backups: Collection[BackupManifest], roots: dict[str, BackupManifest]) -> bool:
        if key.endswith("wal.json"):
            return any(one.system_id in key for one in backups)
        name = key.rsplit("/", 1)[1]
        position = (int(name[8:16], 16) * (1 << 32)) + int(name[16:24], 16) * SEGMENT
        return any(
            f"/wal/{one.system_id}/" in key
            and (
                roots.get(one.parent or "", one).start_lsn.value < position + SEGMENT and position < one.stop_lsn.value
            )
            for one in backups
        )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, st.sampled_from([0, 0, 4]), st.booleans())
def test_what_is_promised_stays_restorable_and_the_rest_goes(
    history: list[tuple[str, int, int, int]], lock_days: int, two_tiers: bool
) -> None:
    world = World(lock_days, two_tiers)
    for step in history:
        world.step(*step)
    world.estate.lock_days = 0
    world.calm_days(4, replicated=False)
    world.release()
    world.calm_days(8)
    world.require_little()
