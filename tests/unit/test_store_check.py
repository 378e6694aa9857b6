"""`dr store check`: a good store passes every promise, a lying one fails those it breaks, and nothing stays behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import AccessDenied
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore
from dr_pipelines.storage.check import check_store
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import ReadOnly, Retrying
from tests.support.faulty_store import FaultyStore


def _verdicts(store: ObjectStore) -> dict[str, Verdict]:
    return {result.name: result.verdict for result in check_store(store)}


def test_a_good_store_passes_and_is_left_as_it_was() -> None:
    store = MemoryStore()
    store.put("dr-store-check-is-not-this", Body.of(b"x"))
    assert set(_verdicts(store).values()) == {Verdict.PASS}
    assert [info.key for info in store.list()] == ["dr-store-check-is-not-this"]


_CONTENT = {"put_is_read_back", "ranges_are_exact", "content_is_not_replaced"}


@pytest.mark.parametrize(
    ("lie", "broken"),
    [
        ({"flip_at": 4}, _CONTENT),
        ({"loses_puts": True}, {*_CONTENT, "listing_is_whole", "damage_is_refused"}),
        ({"replaces": True}, {"content_is_not_replaced"}),
        ({"keeps_deleted": True}, {"delete_removes", "scratch_is_removed"}),
        ({"takes_damage": True}, {"damage_is_refused"}),
        ({"lists_at_most": 20}, {"listing_is_whole"}),
    ],
)
def test_a_lie_is_found(lie: dict[str, Any], broken: set[str]) -> None:
    verdicts = _verdicts(FaultyStore(MemoryStore(), **lie))
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.FAIL} == broken
    assert set(verdicts.values()) == {Verdict.PASS, Verdict.FAIL}


def test_what_a_short_listing_hides_is_removed_too() -> None:
    inner = MemoryStore()
    check_store(FaultyStore(inner, lists_at_most=2))
    assert [*inner.list()] == []


def test_a_store_that_is_down_proves_nothing() -> None:
    store = FaultyStore(MemoryStore(), fail_at=1, stays_down=True)
    assert set(_verdicts(store).values()) == {Verdict.NOT_PROVEN}
    assert store.calls == 2  # a put, and the removal of what may have come of it: a person waits


@pytest.mark.parametrize("fail_at", [1, 5, 40, 90, 100, 105])
def test_one_failed_call_is_made_again_and_leaves_nothing(fail_at: int) -> None:
    inner = MemoryStore()
    verdicts = _verdicts(Retrying(FaultyStore(inner, fail_at=fail_at), FixedClock(datetime(2026, 1, 1, tzinfo=UTC))))
    assert set(verdicts.values()) == {Verdict.PASS}
    assert [*verdicts][-1] == "scratch_is_removed"
    assert [*inner.list()] == []


def test_what_goes_down_midway_is_said_and_the_rest_is_not_tried() -> None:
    results = {result.name: result for result in check_store(FaultyStore(MemoryStore(), fail_at=5, stays_down=True))}
    assert results["put_is_read_back"].verdict is Verdict.NOT_PROVEN
    assert "not tried" in results["delete_removes"].summary
    assert results["scratch_is_removed"].verdict is Verdict.NOT_PROVEN


def test_without_the_right_to_write_nothing_is_proven() -> None:
    verdicts = _verdicts(ReadOnly(MemoryStore()))
    assert verdicts["put_is_read_back"] is Verdict.NOT_PROVEN
    assert verdicts["absence_is_told"] is Verdict.PASS


class _NoDeletes(FaultyStore):
    """A key without the right to delete."""

    def delete(self, key: str) -> None:
        raise AccessDenied(f"may not delete {key}")


def test_scratch_that_may_not_be_removed_is_told_beside_the_results() -> None:
    verdicts = _verdicts(_NoDeletes(MemoryStore()))
    unproven = {name for name, verdict in verdicts.items() if verdict is Verdict.NOT_PROVEN}
    assert unproven == {"delete_removes", "scratch_is_removed"}


class _Interrupted(FaultyStore):
    """A person presses Ctrl-C during a put."""

    def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
        info = super().put(key, body, **asked)
        if key.endswith("taken"):
            raise KeyboardInterrupt
        return info


def test_an_interrupted_check_cleans_up() -> None:
    inner = MemoryStore()
    with pytest.raises(KeyboardInterrupt):
        check_store(_Interrupted(inner))
    assert [*inner.list()] == []
