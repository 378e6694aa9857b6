"""Copies and scrubs of snapshots that fail at any call: what has a manifest is whole, and the next run ends it."""

from __future__ import annotations

import contextlib

import pytest

from dr_pipelines.errors import DrError
from dr_pipelines.operations import replicate
from dr_pipelines.progress import Silent
from tests.support.faulty_store import FaultyStore
from tests.support.file_tiers import DOCS, assert_whole_or_invisible, contents, empty, file_site, filled, labels


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_copy_that_fails_at_any_call_is_whole_or_unseen_and_the_next_ends_it(side: str, stays_down: bool) -> None:
    call, failures = 0, 0
    whole = contents(filled().store)
    while True:
        call += 1
        stores = {"primary": filled().store, "secondary": empty("secondary").store}
        faulty = FaultyStore(stores[side], fail_at=call, stays_down=stays_down)
        try:
            replicate(file_site({**stores, side: faulty}), DOCS, "secondary", Silent())
        except DrError:
            failures += 1
        assert_whole_or_invisible(stores["secondary"])
        with contextlib.suppress(DrError):
            replicate(file_site(stores), DOCS, "secondary", Silent())
        assert contents(stores["secondary"]) == whole
        if faulty.calls < call:
            break
    assert failures > 15


@pytest.mark.parametrize("flip_at", [0, 5])
def test_bytes_that_come_back_otherwise_are_not_copied(flip_at: int) -> None:
    source, target = FaultyStore(filled().store, flip_at=flip_at), empty("secondary").store
    with pytest.raises(DrError):
        replicate(file_site({"primary": source, "secondary": target}), DOCS, "secondary", Silent())
    assert not labels(target)
    assert_whole_or_invisible(target)
