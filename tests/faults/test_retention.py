"""Wherever the store fails while backups are let go, pruned or brought back: what is promised stays restorable, and a
second run ends as an undisturbed one does. Design, invariants 1 and 3."""

from __future__ import annotations

import contextlib

import pytest

from dr_pipelines.errors import DrError
from tests.support.expiring import ACTS, about_to, content, promised, require, require_work
from tests.support.faulty_store import FaultyStore


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["expire", "prune", "undo"])
def test_a_failure_at_any_call(name: str, stays_down: bool) -> None:
    begun, act = about_to(name), ACTS[name]
    instants = promised(begun)
    assert len(instants) > 5
    labels = {one.label for one in begun.manifests()}
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
        require(estate, instants)
        act(estate, estate.store)
        require(estate, instants)
        assert content(estate.store) == ended, f"call {call}"
        if name == "undo":
            assert labels <= {one.label for one in estate.manifests()}
        if faulty.calls < call:
            return
