"""The versions of files that belong to an instant, against a file system whose every version is known."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_pipelines.files.table import FILE, with_columns
from dr_pipelines.reconcile.pairing import Pairing, pair
from dr_pipelines.reconcile.rows import rows_table
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.snapshot_manifest import Counts, Snapshot

BEGIN = datetime(2026, 3, 1, 8, tzinfo=UTC)
State = dict[bytes, tuple[int, bytes]]
"""By path: the minute in which it was written, and the content."""


def at(minute: int) -> datetime:
    return BEGIN + timedelta(minutes=minute)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def manifest(minute: int) -> Snapshot:
    table = StoredObject(key="t", size=1, sha256="0" * 64)
    return Snapshot(
        file_set="docs", label=f"{minute:04}", started_at=at(minute), finished_at=at(minute), tool_version="0",
        taken_on="here", source="/docs", encoding=Codec(1).encoding, counts=Counts(), table=table,
    )  # fmt: skip


def table(state: State) -> pa.Table:
    return with_columns(
        {
            "path": [*state],
            "type": [FILE] * len(state),
            "size": [len(content) for _, content in state.values()],
            "mtime_ns": [int(at(minute).timestamp() * 1e9) for minute, _ in state.values()],
            "sha256": [digest(content) for _, content in state.values()],
        }
    )


def rows(state: State, *, digests: bool = True) -> pa.Table:
    told = [
        (path, len(content), digest(content).hex().encode() if digests else None, None, None)
        for path, (_, content) in state.items()
    ]
    return rows_table("docs", "", [told])


def paired(states: dict[int, State], then: int, known: pa.Table | None) -> Pairing:
    return pair(known, [manifest(minute) for minute in states], at(then), lambda one: table(states[int(one.label)]))


def contents(found: Pairing) -> dict[bytes, bytes]:
    return {row["path"]: row["sha256"] for row in found.files.to_pylist()}


def test_without_rows_it_is_the_snapshot_before() -> None:
    states: dict[int, State] = {0: {b"a": (0, b"1")}, 10: {b"a": (9, b"2")}, 20: {}}
    found = paired(states, 15, None)
    assert (contents(found), found.seconds, found.used) == ({b"a": digest(b"2")}, 300.0, {"0010": 1})
    nothing = paired(states, -5, None)
    assert (len(nothing.files), nothing.seconds) == (0, None)


@pytest.mark.parametrize("digests", [True, False])
def test_what_was_written_after_the_snapshot_comes_from_the_next(digests: bool) -> None:
    states: dict[int, State] = {0: {b"a": (0, b"old"), b"un": (0, b"-")}, 20: {b"a": (5, b"new"), b"b": (6, b"B")}}
    found = paired(states, 10, rows({b"a": (5, b"new"), b"b": (6, b"B")}, digests=digests))
    assert contents(found) == {b"a": digest(b"new"), b"b": digest(b"B"), b"un": digest(b"-")}
    assert (found.proven, found.likely, found.doubtful) == ((2, 0, 0) if digests else (0, 2, 0))
    assert found.used == {"0020": 2, "0000": 1}


def test_what_was_overwritten_after_the_instant_comes_from_before() -> None:
    states: dict[int, State] = {0: {b"a": (0, b"old"), b"b": (0, b"B")}, 20: {b"a": (15, b"new")}}
    for digests in (True, False):
        found = paired(states, 10, rows({b"a": (0, b"old"), b"b": (0, b"B")}, digests=digests))
        assert contents(found) == {b"a": digest(b"old"), b"b": digest(b"B")}, digests


def test_a_version_that_no_snapshot_has_is_missing_and_never_another() -> None:
    states: dict[int, State] = {0: {b"a": (0, b"one")}, 20: {b"a": (15, b"two")}}
    found = paired(states, 10, rows({b"a": (5, b"mid"), b"c": (5, b"C")}))
    assert (len(found.files), sorted(found.missing["path"].to_pylist())) == (0, [b"a", b"c"])


def test_a_later_version_is_better_than_none_and_is_doubted() -> None:
    states: dict[int, State] = {0: {}, 20: {b"a": (15, b"two")}}
    found = paired(states, 10, rows({b"a": (5, b"mid")}, digests=False))
    assert (contents(found), found.doubtful) == ({b"a": digest(b"two")}, 1)
    longer = paired(states, 10, rows({b"a": (5, b"longer")}, digests=False))
    assert (len(longer.files), len(longer.missing)) == (0, 1)


def test_several_rows_may_point_at_one_file() -> None:
    states: dict[int, State] = {0: {b"a": (0, b"one")}}
    bare, named = rows({b"a": (0, b"one")}, digests=False), rows({b"a": (0, b"one")})
    found = paired(states, 10, pa.concat_tables([bare, named, named]))
    assert (found.rows, found.proven, len(found.files)) == (1, 1, 1)


_STEPS = st.lists(
    st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([b"", b"x", b"y", b"zz", None])), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(_STEPS, st.sets(st.integers(0, 11), max_size=6), st.integers(0, 11), st.booleans())
def test_what_is_restored_is_what_the_rows_name(
    steps: list[tuple[bytes, Any]], taken: set[int], then: int, digests: bool
) -> None:
    states: dict[int, State] = {}
    now: State = {}
    for minute, (path, content) in enumerate(steps):
        now = {name: version for name, version in now.items() if name != path}
        if content is not None:
            now[path] = (minute, content)
        states[minute] = dict(now)
    then = min(then, len(steps) - 1)
    truth = states[then]
    kept = {minute: state for minute, state in states.items() if minute in taken}
    found = paired(kept, then, rows(truth, digests=digests))
    got = contents(found)
    missing = set(found.missing["path"].to_pylist())
    for path, (_, content) in truth.items():
        stored = any(state.get(path, (0, None))[1] == content for state in kept.values())
        if digests:
            assert (path in missing) != stored
            assert path in missing or got[path] == digest(content)
        elif then in kept:
            assert got[path] == digest(content)
    assert found.proven + found.likely + found.doubtful + len(missing) == found.rows == len(truth)
