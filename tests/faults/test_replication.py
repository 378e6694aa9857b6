"""Replication that fails at any call: what is on the target can be restored or is not seen, and the next
run makes it whole."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.errors import DrError
from dr_pipelines.operations.replication import replica_equals, replicate
from dr_pipelines.progress import Silent
from dr_pipelines.repository.catalog import read_catalog
from dr_pipelines.storage.base import Body, ObjectInfo, read_all
from tests.support.faulty_store import FaultyStore
from tests.support.replicas import assert_restorable_or_invisible, contents, empty, filled, site_of


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_failure_at_any_call_leaves_what_can_be_restored_and_the_next_run_ends_it(
    side: str, stays_down: bool
) -> None:
    call, failures = 0, 0
    while True:
        call += 1
        stores = {"primary": filled(), "secondary": empty("secondary")}
        faulty = FaultyStore(stores[side], fail_at=call, stays_down=stays_down)
        try:
            replicate(site_of({**stores, side: faulty}), "shop", "secondary", Silent())
        except DrError:
            failures += 1
        assert_restorable_or_invisible(stores["secondary"])
        with contextlib.suppress(DrError):
            replicate(site_of(stores), "shop", "secondary", Silent())
        assert contents(stores["secondary"]) == contents(stores["primary"])
        if faulty.calls < call:
            break
    assert failures > 20


@pytest.mark.parametrize("flip_at", [0, 5])
def test_a_source_that_gives_back_other_bytes_is_not_copied(flip_at: int) -> None:
    source, target = filled(), empty("secondary")
    flipping = FaultyStore(source, flip_at=flip_at)
    with pytest.raises(DrError):
        replicate(site_of({"primary": flipping, "secondary": target}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    assert_restorable_or_invisible(target)


def test_what_an_earlier_run_had_left_and_is_gone_meanwhile_is_not_believed_to_be_there() -> None:
    source, target = filled(), empty("secondary")
    backup = read_catalog(source, "shop").backups[0]
    left = backup.archive.packs[0].key
    target.put(left, Body.of(read_all(source, left)))

    class Pruned(FaultyStore):
        """Someone removes what was left, once it was listed."""

        def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
            if key.startswith(backup.layout.claims):  # put once what is there was listed
                target.delete(left)
            return super().put(key, body, **asked)

    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": Pruned(target)}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    replicate(site_of({"primary": source, "secondary": target}), "shop", "secondary", Silent())
    assert contents(target) == contents(source)


def test_a_store_that_lists_not_all_is_not_believed_to_hold_a_copy() -> None:
    source, target = filled(), empty("secondary")
    loses = FaultyStore(target, loses_puts=True)
    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": loses}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups


def test_a_store_that_loses_what_it_confirmed_has_no_copy_and_gets_another() -> None:
    source, target = filled(), empty("secondary")

    class LosesPacks(FaultyStore):
        def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
            info = super().put(key, body, **asked)
            if "/packs/" in key:
                target.delete(key)
            return info

    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": LosesPacks(target)}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    both = site_of({"primary": source, "secondary": target})
    label = read_catalog(source, "shop").backups[0].label
    assert replica_equals(both, "shop", label, "secondary").verdict is Verdict.FAIL
    replicate(both, "shop", "secondary", Silent())
    assert contents(target) == contents(source)
