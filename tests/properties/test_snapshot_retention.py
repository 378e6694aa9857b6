"""Whatever happened to a file set: no pass of retention takes away what a snapshot that exists names, nor a snapshot
that the plan promises, and what nothing needs goes. Design, invariants 3, 11 and 12."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr_pipelines import operations
from dr_pipelines.errors import RepositoryError
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.file_estate import SET, FileEstate, Running, objects, plan

DAY = timedelta(days=1)
KEPT, LONGER, POLLS, GRACE, IN_FLIGHT = 4 * DAY, 7 * DAY, 2 * DAY, DAY, 2 * DAY

STEPS = (
    "take", "take", "take", "poll", "poll", "crash", "begin", "commit", "commit", "replicate", "replicate a part",
    "damage", "keep", "release", "apply", "apply", "apply", "apply secondary", "apply secondary", "secondary down",
    "mistake",
)  # fmt: skip
HISTORIES = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 60), st.integers(0, 9)), min_size=6, max_size=40)


class World:
    """An estate, its plan, and what the plan promises of it."""

    def __init__(self, two_tiers: bool, versioning: bool, seed: int) -> None:
        self.estate = FileEstate(seed=seed)
        self.tiers = ("primary", "secondary") if two_tiers else ("primary",)
        self.versioning = versioning
        self.kept: set[str] = set()
        self.running: list[Running] = []

    def plan(self, **changes: Any) -> Plan:
        given = {"versioning": self.versioning, "tiers": {"secondary": "7 days"} if len(self.tiers) > 1 else {}}
        return plan(self.tiers, **{**given, **changes})

    # --- promises ---

    def promises(self, store: MemoryStore, kept_for: timedelta) -> set[str]:
        """Labels that are there, are whole, and must stay so."""
        there = [one for one in self.estate.manifests(store) if one.label in self._whole(store)]
        now = self.estate.clock.now()
        promised = {one.label for one in there[-1:]} | {one.label for one in there if one.label in self.kept}
        if self.versioning:
            promised |= {one.label for one in there if one.finished_at + (POLLS if one.is_poll else kept_for) > now}
        return promised

    def _whole(self, store: MemoryStore) -> set[str]:
        return {one.label for one in read_snapshots(store, SET).usable}

    def _due_on_secondary(self) -> set[str]:
        if len(self.tiers) == 1:
            return set()
        there = read_snapshots(self.estate.secondary, SET)
        let_go = {gone.manifest.label for gone in there.expired}
        return self.promises(self.estate.store, LONGER) - {one.label for one in there.usable} - let_go

    # --- passes ---

    def apply(self, tier: str = "primary", **stores: Any) -> None:
        store = self.estate.store if tier == "primary" else self.estate.secondary
        promised = self.promises(store, KEPT if tier == "primary" else LONGER)
        promised |= self._due_on_secondary() if tier == "primary" else set()
        lost = self._lacking(store)
        operations.apply_retention(self.estate.site(self.plan(), **stores), SET, tier, Silent(), yes=True)
        assert promised <= self.estate.labels(store), promised - self.estate.labels(store)
        assert self._lacking(store) <= lost

    def _lacking(self, store: MemoryStore) -> set[tuple[str, str]]:
        there = {info.key for info in store.list()}
        return {
            (one.label, named.key)
            for one in self.estate.manifests(store)
            for named in one.objects
            if named.key not in there
        }

    def apply_by_mistake(self) -> None:
        """A plan that keeps nearly nothing; within the grace that is undone, and all is as it was."""
        self.apply()
        estate = self.estate
        labels, lacking = estate.labels(), self._lacking(estate.store)
        wrong = self.plan(retention="1 hour", tiers={})
        for wait in (timedelta(0), GRACE - timedelta(hours=1)):
            estate.clock.advance(wait)
            operations.apply_retention(estate.site(wrong), SET, "primary", Silent(), yes=True)
        with suppress(RepositoryError):  # all that was let go had lost something before
            operations.undo_expiry(estate.site(self.plan()), SET, "primary")
        assert labels - self._unwhole(lacking) <= estate.labels()
        assert self._lacking(estate.store) <= lacking

    def _unwhole(self, lacking: set[tuple[str, str]]) -> set[str]:
        return {label for label, _ in lacking}

    # --- what happens ---

    def step(self, name: str, hours: int, number: int) -> None:
        estate = self.estate
        estate.clock.advance(timedelta(hours=hours))
        there = estate.manifests()
        two_tiers = len(self.tiers) > 1
        if name in ("take", "poll"):
            estate.take(poll=name == "poll")
        elif name == "crash":
            estate.crash()
        elif name == "begin":
            self.running.append(estate.begin())
            self.running[-1].put_archive()
        elif name == "commit" and self.running:
            self.commit()
        elif name == "replicate" and two_tiers:
            estate.replicate()
        elif name == "replicate a part" and two_tiers:
            estate.replicate(cut=number)
        elif name == "damage" and there:
            estate.store.delete(there[number % len(there)].archives[-1].packs[0].key)
        elif name == "keep" and there:
            label = there[number % len(there)].label
            operations.keep_backup(estate.site(self.plan()), SET, label, until=None, reason="wanted", by="me")
            self.kept.add(label)
        elif name == "release":
            self.release()
        elif name == "apply":
            self.apply()
        elif name == "apply secondary" and two_tiers:
            self.apply("secondary")
        elif name == "secondary down" and two_tiers:
            self.apply(secondary=FaultyStore(estate.secondary, fail_at=1, stays_down=True))
        elif name == "mistake":
            self.apply_by_mistake()

    def commit(self) -> None:
        """As the engine: not when what it uses is gone. Of one that put something of late, nothing is."""
        running = self.running.pop(0)
        before = self._lacking(self.estate.store)
        lacking = {key for _, key in before}
        made = running.commit()
        fresh = [key for label, key in self._lacking(self.estate.store) - before if label == made.label]
        if [key for key in fresh if key not in lacking]:
            assert running.quiet_for() > IN_FLIGHT, fresh
            self.estate.store.delete(made.layout.manifest)

    def release(self) -> None:
        for label in self.kept:
            operations.release_backup(self.estate.site(self.plan()), SET, label)
        self.kept = set()

    # --- what is not needed goes ---

    def calm_days(self, count: int) -> None:
        for _ in range(count):
            self.estate.clock.advance(DAY)
            self.estate.take()
            if len(self.tiers) > 1:
                self.estate.replicate()
                self.apply("secondary")
            self.apply()

    def require_little(self) -> None:
        for store, kept in [(self.estate.store, KEPT), (self.estate.secondary, LONGER)][: len(self.tiers)]:
            now, catalog = self.estate.clock.now(), read_snapshots(store, SET)
            oldest = now - (kept if self.versioning else 2 * DAY) - DAY
            assert [one.label for one in catalog.snapshots if one.finished_at <= oldest] == []
            polls = [one for one in catalog.snapshots if one.is_poll]
            assert [one.label for one in polls if one.finished_at <= now - POLLS - DAY] == []
            assert all(gone.at > now - GRACE - IN_FLIGHT - DAY for gone in catalog.expired)
            told = [*catalog.snapshots, *(gone.manifest for gone in catalog.expired)]
            named = {stored.key for one in told for stored in one.objects}
            labels = {one.label for one in told}
            for key, at in objects(store).items():
                of_label = "/snapshots/" in key and key.split("/")[3] in labels
                assert key in named or of_label or at > now - IN_FLIGHT - 2 * DAY, key
            assert {one.label for one in catalog.snapshots} >= self.promises(store, kept)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, st.booleans(), st.sampled_from([True, True, False]), st.integers(0, 99))
def test_what_exists_stays_whole_and_the_rest_goes(
    history: list[tuple[str, int, int]], two_tiers: bool, versioning: bool, seed: int
) -> None:
    world = World(two_tiers, versioning, seed)
    for step in history:
        world.step(*step)
    world.running.clear()
    world.release()
    world.calm_days(12)
    world.require_little()
