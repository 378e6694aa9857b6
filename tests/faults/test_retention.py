"""Wherever the store fails while backups are let go, pruned or brought back: what is promised stays restorable, and a
second run ends as an undisturbed one does. Design, invariants 1 and 3."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from dr_pipelines import operations
from dr_pipelines.errors import DrError
from dr_pipelines.progress import Silent
from dr_pipelines.storage.base import ObjectStore
from tests.support.estate import SERVER, Estate, Instant, contents, plan
from tests.support.faulty_store import FaultyStore

Act = Callable[[Estate, ObjectStore], object]


def _lived() -> Estate:
    """Six days with incrementals, a promotion, garbage of a crash; nothing was ever let go."""
    estate = Estate()
    for day in range(6):
        estate.work(4, 3)
        full = estate.back_up()
        if day % 2:
            estate.back_up(full)
        if day == 1:
            estate.crash()
        if day == 4:
            estate.promote()
        estate.work(18, 5)
    return estate


def _apply(estate: Estate, store: ObjectStore) -> object:
    return operations.apply_retention(estate.site(plan(), primary=store), SERVER, "primary", Silent(), yes=True)


def _undo(estate: Estate, store: ObjectStore) -> object:
    return operations.undo_expiry(estate.site(plan(), primary=store), SERVER, "primary")


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["expire", "prune", "undo"])
def test_a_failure_at_any_call(name: str, stays_down: bool) -> None:
    begun = _lived()
    for act in {"expire": (), "prune": (_apply, _apply), "undo": (_apply,)}[name]:
        act(begun, begun.store)
        begun.clock.advance(timedelta(hours=25))
    act: Act = _undo if name == "undo" else _apply
    judge, now = begun.judge(), begun.clock.now()
    instants = {i for i in begun.instants if i.at >= now - timedelta(days=2) and judge.reaches(i)}
    labels = {one.label for one in begun.manifests()}
    undisturbed = begun.clone()
    act(undisturbed, undisturbed.store)
    ended, call = _content(undisturbed), 0
    assert ended != _content(begun)
    while True:
        call += 1
        estate = begun.clone()
        faulty = FaultyStore(estate.store, fail_at=call, stays_down=stays_down)
        with contextlib.suppress(DrError):
            act(estate, faulty)
        _require(estate, instants)
        act(estate, estate.store)
        _require(estate, instants)
        assert _content(estate) == ended, f"call {call}"
        if name == "undo":
            assert labels <= {one.label for one in estate.manifests()}
        if faulty.calls < call:
            return


def _content(estate: Estate) -> set[str]:
    """Without what is told apart by chance, and what says nothing beside a manifest."""
    keys = contents(estate.store).keys()
    told = {key.replace("/manifest.json", "/expired.json") for key in keys if key.endswith("/manifest.json")}
    return {key for key in keys if "/proofs/" not in key and not (key.endswith("expired.json") and key in told)}


def _require(estate: Estate, instants: set[Instant]) -> None:
    judge, manifests = estate.judge(), estate.manifests()
    assert all(judge.reaches(instant) for instant in instants)
    there = {one.label for one in manifests}
    assert all(one.parent in there for one in manifests if one.parent)
    # What has a manifest is whole, whatever happened.
    assert all(judge.restores(one) for one in manifests)
