"""An estate at the moment at which backups are let go, pruned or brought back, and what holds whatever happens then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.progress import Silent
from dr_pipelines.storage.base import ObjectStore
from tests.support.estate import BEGIN, SERVER, Estate, Instant, contents, plan

Act = Callable[[Estate, ObjectStore], object]


def apply(estate: Estate, store: ObjectStore) -> object:
    return operations.apply_retention(estate.site(plan(), primary=store), SERVER, "primary", Silent(), yes=True)


def undo(estate: Estate, store: ObjectStore) -> object:
    return operations.undo_expiry(estate.site(plan(), primary=store), SERVER, "primary")


ACTS: dict[str, Act] = {"expire": apply, "prune": apply, "undo": undo}
_BEFORE: dict[str, tuple[Act, ...]] = {"expire": (), "prune": (apply,), "undo": (apply,)}


def about_to(name: str, begin: datetime = BEGIN) -> Estate:
    """Six days with incrementals, a promotion, garbage of a crash; and then all up to the act of this name."""
    estate = Estate(FixedClock(begin))
    for day in range(6):
        _live_for_a_day(estate, with_incremental=bool(day % 2))
        if day == 1:
            estate.crash()
        if day == 4:
            estate.promote()
    for act in _BEFORE[name]:
        act(estate, estate.store)
        _live_for_a_day(estate, with_incremental=True)
        estate.clock.advance(timedelta(hours=1))  # the grace is over
    return estate


def _live_for_a_day(estate: Estate, *, with_incremental: bool) -> None:
    estate.work(4, 3)
    full = estate.back_up()
    if with_incremental:
        estate.back_up(full)
    estate.work(18, 5)


def about_to_by(now: datetime, name: str) -> Estate:
    """So that it is for whoever looks at this time, or within the minutes after: all that happened lies some hours and
    a half before."""
    lasts = about_to(name).clock.now() - BEGIN
    return about_to(name, now - lasts - timedelta(minutes=30))


def promised(estate: Estate) -> set[Instant]:
    """What can be restored of the recovery window."""
    judge, now = estate.judge(), estate.clock.now()
    return {i for i in estate.instants if i.at >= now - timedelta(days=2) and judge.reaches(i)}


def require_work(name: str, before: set[str], after: set[str]) -> None:
    """That the act did what it is called by: as it is, the test tries something."""
    if name == "undo":
        assert sum(key.endswith("/manifest.json") for key in after - before) > 2
        return
    kinds = ("/manifest.json",) if name == "expire" else ("/expired.json", "/packs/", ".zst", "/wal/")
    for kind in kinds:
        assert sum(kind in key for key in before - after) > 2, kind


def require(estate: Estate, instants: set[Instant], store: ObjectStore | None = None) -> None:
    judge, manifests = estate.judge(store), estate.manifests(store)
    assert all(judge.reaches(instant) for instant in instants)
    there = {one.label for one in manifests}
    assert all(one.parent in there for one in manifests if one.parent)
    # What has a manifest is whole, whatever happened.
    assert all(judge.restores(one) for one in manifests)


def content(store: ObjectStore) -> set[str]:
    """Without what is told apart by chance, and what says nothing beside a manifest."""
    keys = contents(store).keys()
    told = {key.replace("/manifest.json", "/expired.json") for key in keys if key.endswith("/manifest.json")}
    return {key for key in keys if "/proofs/" not in key and not (key.endswith("expired.json") and key in told)}
