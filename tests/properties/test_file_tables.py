"""Tables of files that are laid over each other, and contents that become more: held against Python's dictionaries."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_pipelines.files import contents
from dr_pipelines.files.contents import with_new
from dr_pipelines.files.table import FILE, GONE, changes_of, in_order, lay_over, with_columns

_PATHS = st.sampled_from([f"{number}".encode() for number in range(12)])
_ROWS = st.dictionaries(_PATHS, st.tuples(st.integers(0, 2), st.sampled_from([None, "a", "b"])))
_PLACES = st.dictionaries(st.integers(0, 9), st.tuples(st.sampled_from("abc"), st.integers(0, 2)))

Rows = Mapping[bytes, tuple[int, str | None]]
Places = Mapping[int, tuple[str, int]]


def _table(rows: Rows) -> pa.Table:
    sizes, owners = [size for size, _ in rows.values()], [owner for _, owner in rows.values()]
    return in_order(
        with_columns({"path": [*rows], "type": [FILE] * len(rows), "size": sizes, "user": owners, "headers": [
            [("owner", owner)] if owner else None for owner in owners]})
    )  # fmt: skip


@settings(deadline=None)
@given(_ROWS, _ROWS)
def test_a_table_and_what_changed_of_it_are_the_other_table(before: Rows, after: Rows) -> None:
    base, table = _table(before), _table(after)
    changes = changes_of(base, table)
    assert lay_over(base, changes).equals(table)
    differ = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert changes["path"].to_pylist() == sorted(differ)
    gone = {path for path, type_ in zip(*_columns(changes, "path", "type"), strict=True) if type_ == GONE}
    assert gone == before.keys() - after.keys()


@settings(deadline=None)
@given(_ROWS, _ROWS, _ROWS)
def test_changes_are_always_of_the_base(base: Rows, then: Rows, now: Rows) -> None:
    """However a table became what it is, and also where nothing is left of what changed before."""
    became = lay_over(_table(base), changes_of(_table(base), _table(then)))
    became = lay_over(became, changes_of(became, _table(now)))
    assert changes_of(_table(base), became).equals(changes_of(_table(base), _table(now)))


@settings(deadline=None)
@given(_PLACES, _PLACES, st.sets(st.sampled_from("abc")))
def test_contents_are_where_they_were_put_last(known: Places, new: Places, archives: set[str]) -> None:
    found = with_new(_contents(known), pa.concat_tables([_contents(new)] * 2), archives)
    digests, names, offsets = _columns(found, "sha256", "archive", "offset")
    kept = {number: place for number, place in known.items() if place[0] in archives}
    kept |= {number: place for number, place in new.items() if place[0] in archives}
    assert len(digests) == len(kept)
    there = zip(digests, names, offsets, strict=True)
    assert {digest[0]: (name, offset) for digest, name, offset in there} == kept


def _contents(places: Places) -> pa.Table:
    digests = [bytes([number]) * 32 for number in places]
    columns = [digests, [9] * len(places), [name for name, _ in places.values()], [at for _, at in places.values()]]
    return pa.table(columns, schema=contents.SCHEMA)


def _columns(table: pa.Table, *names: str) -> list[list[object]]:
    return [table[name].to_pylist() for name in names]
