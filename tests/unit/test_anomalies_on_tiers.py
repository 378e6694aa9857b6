"""A snapshot that was found unusual, and a person's word that it is well, on tiers that decide without the others."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import AccessDenied, StoreUnavailable, UsageError
from dr_pipelines.operations import Accepted
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import ProofName
from dr_pipelines.repository.marks import EQUIVALENCE, unheard
from dr_pipelines.site import Site
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import ReadOnly
from tests.support import forked
from tests.support.estate import write_to
from tests.support.faulty_store import FaultyStore
from tests.support.file_estate import SET, FileEstate, plan
from tests.support.file_tiers import empty

BOTH = ("primary", "secondary")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


class Attacked(FileEstate):
    """Seven days of snapshots; the last was found unusual while it was taken. All are on both tiers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for day in range(7):
            self.clock.advance(DAY)
            if day == 6:
                self.attack()
            else:
                self.take()
            self.copy()
        self.clock.advance(MINUTE)

    def attack(self) -> None:
        running = self.begin()
        self.label, self.found_at = running.writer.label, self.clock.now()
        self.clock.advance(MINUTE)
        self.prove(running.commit(), "anomaly", good=False)

    def without(self, tier: str) -> Site:
        """That tier does not answer."""
        gone = {"primary": self.store, "secondary": self.secondary}[tier]
        return self.site(plan(BOTH), **{tier: FaultyStore(gone, fail_at=1, stays_down=True)})

    def copy(self, source: str = "primary", target: str = "secondary") -> None:
        operations.replicate(self.site(plan(BOTH)), SET, target, Silent(), source=source)

    def accept(self, site: Site | None = None) -> Accepted:
        self.clock.advance(MINUTE)
        return operations.accept_snapshot(
            site or self.site(plan(BOTH)), SET, self.label, reason="a migration", by="ann"
        )


@pytest.fixture
def attacked() -> Attacked:
    return Attacked()


def lets_go(site: Site, tier: str) -> bool:
    return bool(operations.plan_retention(site, SET, tier).expire)


def holds(site: Site, tier: str) -> bool:
    decisions = operations.plan_retention(site, SET, tier).decisions
    return any("is unusual" in one.why for one in decisions)


def test_the_flag_comes_with_the_copy_and_holds_what_is_older_when_the_primary_is_gone(attacked: Attacked) -> None:
    without = attacked.without("primary")
    found = operations.plan_retention(without, SET, "secondary")
    assert not found.expire
    assert f"`dr files accept {SET} {attacked.label}`" in found.decisions[0].why
    assert not operations.apply_retention(without, SET, "secondary", Silent(), yes=True).expired
    check = operations.changes_are_usual(without, SET)
    assert check.verdict == "fail" and check.details["unusual"] == [attacked.label]


def test_what_is_accepted_without_the_primary_is_let_go_and_the_primary_is_told_later(attacked: Attacked) -> None:
    done = attacked.accept(attacked.without("primary"))
    assert done.on == ("secondary",)
    assert isinstance(done.missed["primary"], StoreUnavailable)
    assert lets_go(attacked.without("primary"), "secondary")
    assert operations.changes_are_usual(attacked.without("primary"), SET).verdict == "not proven"
    assert lets_go(attacked.site(plan(BOTH)), "primary")  # it can read the secondary
    assert operations.changes_are_usual(attacked.site(plan(BOTH)), SET, attacked.label).passed
    assert not lets_go(attacked.without("secondary"), "primary")
    attacked.copy()
    assert lets_go(attacked.without("secondary"), "primary")


def test_an_acceptance_is_on_every_tier_or_comes_there_with_the_next_copies(attacked: Attacked) -> None:
    site = attacked.site(plan(BOTH), secondary=ReadOnly(attacked.secondary))
    done = attacked.accept(site)
    assert done.on == ("primary",)
    assert "open for reading only" in done.missed["secondary"].message
    assert not lets_go(attacked.without("primary"), "secondary")
    assert attacked.accept().on == ("secondary",)  # once more tells who has not heard
    assert lets_go(attacked.without("primary"), "secondary")
    with pytest.raises(UsageError, match="not unusual"):
        attacked.accept()

    again = Attacked()
    again.accept(again.site(plan(BOTH), secondary=ReadOnly(again.secondary)))
    again.copy()
    assert lets_go(again.without("primary"), "secondary")


def test_nobody_could_be_told(attacked: Attacked) -> None:
    stores = {"primary": ReadOnly(attacked.store), "secondary": ReadOnly(attacked.secondary)}
    with pytest.raises(AccessDenied, match="primary is open for reading only"):
        attacked.accept(attacked.site(plan(BOTH), **stores))


def test_a_flag_of_what_was_copied_before_is_told_by_the_next_run_and_a_new_primary_gets_it_back() -> None:
    attacked = Attacked()
    for info in [*attacked.secondary.list(f"files/{SET}/snapshots/{attacked.label}/proofs/anomaly")]:
        attacked.secondary.delete(info.key)
    assert lets_go(attacked.without("primary"), "secondary")
    attacked.copy()
    assert not lets_go(attacked.without("primary"), "secondary")

    # The primary is made anew.
    attacked.store = MemoryStore("primary", attacked.clock)
    empty("primary", attacked.store)
    attacked.copy("secondary", "primary")
    assert holds(attacked.without("secondary"), "primary")
    assert attacked.accept().on == BOTH
    assert not holds(attacked.without("secondary"), "primary")


def test_what_speaks_against_an_incremental_is_told_and_what_was_read_on_one_tier_is_not() -> None:
    early, late = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    bad, good = ProofName(EQUIVALENCE, late, "fail"), ProofName(EQUIVALENCE, early, "pass")
    assert unheard([bad], [good]) == unheard([bad, good], []) == (bad,)
    assert unheard([good], []) == unheard([good], [bad]) == unheard([bad], [bad]) == ()
    assert unheard([ProofName("scrub", late, "fail")], []) == ()


def test_a_person_is_told_which_tier_could_not_be(tmp_path: Path) -> None:
    attacked = Attacked(FixedClock(datetime.now(UTC) - timedelta(days=7, hours=1)))
    write_to(attacked.store, tmp_path / "primary")
    tiers = {tier: {"type": "local", "path": tier} for tier in BOTH}
    written = plan(BOTH).model_dump(mode="json", exclude_defaults=True) | {"state_dir": "state", "storage": tiers}
    (tmp_path / "plan.yaml").write_text(yaml.dump(written))
    env = {**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")}
    done = forked.dr("files", "accept", SET, attacked.label, "--reason", "well", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{attacked.label} is accepted on primary" in done.stdout
    assert "secondary could not be told: secondary: there is no folder" in done.stdout
    assert f"until `dr replicate {SET}` tells it" in done.stdout
    (tmp_path / "secondary").mkdir()
    write_to(attacked.secondary, tmp_path / "secondary")
    done = forked.dr("files", "accept", SET, attacked.label, "--reason", "well", "--json", env=env, cwd=tmp_path)
    assert json.loads(done.stdout) == {"label": attacked.label, "accepted": True, "on": ["secondary"], "not_on": {}}
