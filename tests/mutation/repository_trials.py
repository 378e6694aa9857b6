"""A damaged repository before all who look at one: each daily and weekly check, and a restore from that tier alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from dr_pipelines.checks import CheckResult, Verdict, failed, passed
from dr_pipelines.embedded.postgres import open_folder
from dr_pipelines.errors import DrError
from dr_pipelines.operations import judge_catalog, validate_backup, wal_has_no_gap
from dr_pipelines.operations.integrity import check_backup, check_replica
from dr_pipelines.operations.scrub import scrub
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.suite import AT_END, AT_FACTS, BEFORE_START, Suite
from tests.mutation.ledger import REFUSED, RIGHT, WRONG, Ledger, Trial
from tests.mutation.repository_damage import Damage, each
from tests.support.lived import Lived

Look = Callable[[Site, Lived], Iterable[CheckResult]]


def _scrub(tier: str) -> Look:
    return lambda site, home: [scrub(site, tier, Silent(), repair=False).check]


def _integrity(site: Site, home: Lived) -> Iterator[CheckResult]:
    for label in (home.full, home.incremental):
        yield from check_backup(site, "shop", label, "primary", Silent())


def _replica(site: Site, home: Lived) -> Iterator[CheckResult]:
    for label in (home.full, home.incremental):
        yield from check_replica(site, "shop", label, "secondary", Silent())


LOOKS: dict[str, Look] = {
    "scrub": _scrub("primary"),
    "scrub of the replica": _scrub("secondary"),
    "integrity": _integrity,
    "replica": _replica,
    "wal_has_no_gap": lambda site, home: [wal_has_no_gap(site, "shop")],
    "expectations": lambda site, home: judge_catalog(site, "shop").values(),
}
"""All that looks at stores by day and by week."""
AS_HERE = {"amcheck": False}
"""The embedded PostgreSQL has no amcheck."""
ORACLE = "all_rows_are_there"


def displeased(site: Site, home: Lived) -> dict[str, Verdict]:
    """The checks that do not pass. A look that ends with an error is one that fails, by its own name."""
    found: dict[str, Verdict] = {}
    for named, look in LOOKS.items():
        try:
            found |= {result.name: result.verdict for result in look(site, home) if not result.passed}
        except DrError:
            found[named] = Verdict.FAIL
    return found


def _oracle(home: Lived) -> Callable[[RestoredCopy], CheckResult]:
    def all_rows_are_there(copy: RestoredCopy) -> CheckResult:
        ((rows, total),) = copy.server().ask("SELECT count(*), sum(id) FROM orders")
        judge = passed if (rows, total) == (home.rows, sum(range(1, home.rows + 1))) else failed
        return judge(ORACLE, f"{rows} rows")

    return all_rows_are_there


def restored(site: Site, home: Lived, label: str, tier: str = "primary") -> tuple[str, tuple[str, ...]]:
    """What becomes of a restore of that backup from that tier alone, and which checks of its validation notice. Only
    whoever knows the truth can say that data is wrong: that check is none of the product's, and not counted as one."""
    try:
        suite = Suite(BEFORE_START, AT_FACTS, (*AT_END, _oracle(home)))
        report = validate_backup(site, "shop", label, tier, Silent(), suite=suite)
    except DrError:
        return REFUSED, ("restore",)
    if "error" in report.check.details:
        return REFUSED, ("restore",)
    verdicts = {check.name: check.passed for check in report.checks}
    right = verdicts.pop(ORACLE)
    return RIGHT if right else WRONG, tuple(name for name, fine in verdicts.items() if not fine)


@contextmanager
def copied(home: Lived) -> Iterator[Lived]:
    base = open_folder("dr-mutation-")
    try:
        yield replace(home.copy(base), rows=home.rows)
    finally:
        shutil.rmtree(base, ignore_errors=True)


class RepositoryTrials:
    """Damages copies of one good repository. `mute`: checks that prove nothing even of that one (a repository of two
    backups has no usual size); what they say of a damaged one counts for nothing."""

    def __init__(self, home: Lived, rng: random.Random) -> None:
        self._home, self._rng = home, rng
        self.ledger = Ledger("one tier of a repository damaged, the other whole")
        self.mute: set[str] = set()

    def run(self, count: int, say: Callable[[str], None]) -> Ledger:
        self.try_good()
        for number, (kind, damage) in enumerate(each(self._rng, count), start=1):
            self.try_damage(kind, damage)
            if number % 50 == 0:
                say(f"{number} of {count} repositories damaged")
        self.try_good()
        return self.ledger

    def try_good(self) -> None:
        """No check may fail on what is whole."""
        with copied(self._home) as copy:
            site = copy.site(validation=AS_HERE)
            found = displeased(site, copy)
            self.mute = {name for name, verdict in found.items() if verdict is Verdict.NOT_PROVEN}
            self.ledger.alarms += [f"{name} fails on a good repository" for name in found if name not in self.mute]
            for label in (copy.full, copy.incremental):
                restore, noticed = restored(site, copy, label)
                if restore != RIGHT or noticed:
                    self.ledger.alarms.append(f"a good {label} is not proven by its restore: {restore}, {noticed}")
            self.ledger.good += 1

    def try_damage(self, kind: str, damage: Damage) -> Trial:
        with copied(self._home) as copy:
            done = damage(copy, self._rng)
            site = copy.site(validation=AS_HERE)
            seen = tuple(name for name in displeased(site, copy) if name not in self.mute)
            restore: str | None = None
            if done.label is not None or not seen:
                restore, noticed = restored(site, copy, done.label or copy.incremental, done.tier)
                seen += noticed
        if done.ends_early and restore == WRONG:
            restore = "ends earlier"
        trial = Trial(kind, done.what, seen, restore)
        self.ledger.add(trial)
        return trial
