"""Wherever the store fails while snapshots are let go, pruned or brought back: what exists is whole, and a second run
ends as an undisturbed one does. Design, invariants 1 and 3."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from dr_pipelines import operations
from dr_pipelines.errors import DrError
from dr_pipelines.progress import Silent
from dr_pipelines.storage.base import ObjectStore
from tests.support.estate import contents
from tests.support.expiring import content
from tests.support.faulty_store import FaultyStore
from tests.support.file_estate import SET, FileEstate, plan

DAY = timedelta(days=1)
Act = Callable[[FileEstate, ObjectStore], object]


def apply(estate: FileEstate, store: ObjectStore) -> object:
    return operations.apply_retention(estate.site(plan(), primary=store), SET, "primary", Silent(), yes=True)


def undo(estate: FileEstate, store: ObjectStore) -> object:
    return operations.undo_expiry(estate.site(plan(), primary=store), SET, "primary")


ACTS: dict[str, Act] = {"expire": apply, "prune": apply, "undo": undo}


def about_to(name: str) -> FileEstate:
    """Snapshots that share archives and tables, one that is kept, garbage of a crash; and then all up to the act of
    this name."""
    estate = FileEstate()
    for _ in range(7):
        estate.clock.advance(DAY)
        estate.take()
    estate.crash()
    some = estate.manifests()[3]
    operations.keep_backup(estate.site(), SET, some.label, until=None, reason="wanted", by="me")
    if name != "expire":
        apply(estate, estate.store)
    if name == "prune":
        estate.clock.advance(2 * DAY + timedelta(hours=1))
        estate.take()
    return estate


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["expire", "prune", "undo"])
def test_a_failure_at_any_call(name: str, stays_down: bool) -> None:
    begun, act = about_to(name), ACTS[name]
    begun.require_whole()
    labels, recent = begun.labels(), begun.clock.now() - 4 * DAY
    promised = {one.label for one in begun.manifests() if one.finished_at > recent}
    undisturbed = begun.clone()
    act(undisturbed, undisturbed.store)
    ended, call = content(undisturbed.store), 0
    require_work(name, content(begun.store), ended)
    while True:
        call += 1
        estate = begun.clone()
        faulty = FaultyStore(estate.store, fail_at=call, stays_down=stays_down)
        with contextlib.suppress(DrError):
            act(estate, faulty)
        estate.require_whole()
        assert promised <= estate.labels()
        if name == "expire" and call % 5 == 0:
            back = estate.clone()
            undo(back, back.store)
            assert labels <= back.labels()
            back.require_whole()
        act(estate, estate.store)
        estate.require_whole()
        assert content(estate.store) == ended, f"call {call}"
        if name == "undo":
            assert labels < estate.labels()
        if faulty.calls < call:
            return


def require_work(name: str, before: set[str], after: set[str]) -> None:
    """That the act did what it is called by: as it is, the test tries something."""
    if name == "undo":
        assert sum(key.endswith("/manifest.json") for key in after - before) > 1
        return
    kinds = (
        ("/manifest.json",)
        if name == "expire"
        else ("/expired.json", "/archives/", "/lists/", "parquet.zst", "/claims/")
    )
    for kind in kinds:
        assert any(kind in key for key in before - after), kind


def test_a_table_that_others_are_laid_over_stays_when_its_snapshot_is_gone() -> None:
    estate = about_to("prune")
    apply(estate, estate.store)
    named = {one.table.key: one for one in estate.manifests()}
    borrowed = [key for key, one in named.items() if key.split("/")[3] not in estate.labels()]
    assert borrowed, "no snapshot that stays has a table of one that is gone: the test tries nothing"
    assert {*borrowed} <= contents(estate.store).keys()
    estate.require_whole()
