"""Rows against files, as tables: what each kind of finding is, and what proves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_pipelines.checks import Verdict
from dr_pipelines.files.table import FILE, LINK, with_columns
from dr_pipelines.reconcile.checks import NAMED, references_match
from dr_pipelines.reconcile.compare import DIGEST, EXTRA, MISSING, SIZE, Comparison, compare, lasting, worth_reading
from dr_pipelines.reconcile.rows import rows_table, together

ONE, TWO = b"\x01" * 32, b"\x02" * 32


def rows(*given: tuple[bytes, int | None, bytes | None], prefix: str = "") -> pa.Table:
    return rows_table(
        "docs", prefix, [[(path, size, text and text.hex().encode(), None, None) for path, size, text in given]]
    )


def files(found: Mapping[bytes, tuple[int, bytes | None]], **columns: Sequence[Any]) -> pa.Table:
    told: dict[str, Sequence[Any]] = {
        "path": [*found],
        "type": [FILE] * len(found),
        "size": [size for size, _ in found.values()],
        "sha256": [digest for _, digest in found.values()],
    }
    return with_columns(told | columns)


def paths(found: Comparison, kind: str) -> list[bytes]:
    return [row["path"] for row in found.findings.to_pylist() if row["kind"] == kind]


def test_each_kind_of_finding() -> None:
    seen = compare(
        rows((b"same", 1, ONE), (b"gone", 1, ONE), (b"longer", 1, ONE), (b"other", 1, TWO), (b"bare", None, None)),
        files({b"same": (1, ONE), b"longer": (2, TWO), b"other": (1, ONE), b"bare": (7, None), b"extra": (1, ONE)}),
        [b""],
    )
    assert {kind: paths(seen, kind) for kind in (MISSING, EXTRA, SIZE, DIGEST)} == {
        MISSING: [b"gone"], EXTRA: [b"extra"], SIZE: [b"longer"], DIGEST: [b"other"],
    }  # fmt: skip
    check = references_match(seen, against="the source")
    assert check.verdict is Verdict.FAIL
    assert "1 row without its file, 1 file without a row" in check.summary
    assert check.details["findings"]["digest"] == [
        {
            "kind": "digest", "path": "other", "reference": "docs", "size": 1, "sha256": TWO.hex(), "found_size": 1,
            "found_sha256": ONE.hex(),
        }
    ]  # fmt: skip


def test_files_outside_of_the_folders_need_no_row() -> None:
    held = files({b"docs/a": (1, None), b"thumbs/a": (1, None), b"docsX": (1, None)})
    seen = compare(rows((b"/a", None, None), prefix="/docs/"), held, [b"docs/"])
    assert not len(seen.findings)
    assert references_match(seen, against="the source").verdict is Verdict.PASS


def test_what_was_not_seen_has_not_passed() -> None:
    nothing = compare(rows(), files({}), [b""])
    assert references_match(nothing, against="the source").verdict is Verdict.NOT_PROVEN
    hidden = compare(rows((b"shut/a", 1, None)), files({}), [b""], {b"shut": "permission denied"})
    assert (hidden.unseen, len(hidden.findings)) == (1, 0)
    failed = compare(rows((b"a", 1, None)), files({b"a": (1, None)}, error=["i/o error"]), [b""])
    assert (failed.unseen, len(failed.findings)) == (1, 0)
    undigested = compare(rows((b"a", 1, ONE)), files({b"a": (1, None)}), [b""])
    assert undigested.undigested == 1
    md5 = compare(rows_table("docs", "", [[(b"a", 1, b"d41d8cd9", None, None)]]), files({b"a": (1, None)}), [b""])
    assert md5.unusable == 1
    for seen in (hidden, failed, undigested, md5):
        assert references_match(seen, against="the source").verdict is Verdict.NOT_PROVEN


def test_rows_of_another_time_prove_nothing() -> None:
    seen = compare(rows((b"new", 1, ONE)), files({}), [b""])
    doubted = references_match(seen, against="a snapshot", doubtful={MISSING})
    assert doubted.verdict is Verdict.NOT_PROVEN
    assert references_match(seen, against="a snapshot", doubtful={EXTRA}).verdict is Verdict.FAIL
    young = compare(rows(), files({b"a": (1, ONE)}), [b""], younger=rows((b"a", 1, TWO)))
    assert not len(young.findings)


def test_only_the_first_are_named_and_all_are_counted() -> None:
    seen = compare(rows(*((f"{n}".encode(), 1, None) for n in range(2 * NAMED))), files({}), [b""])
    check = references_match(seen, against="the source")
    assert (check.details["missing"], len(check.details["findings"]["missing"])) == (2 * NAMED, NAMED)


def test_what_lasts_is_the_same_both_times() -> None:
    first = compare(rows((b"a", 1, ONE), (b"b\xff", 1, ONE)), files({b"b\xff": (2, None)}), [b""]).findings
    second = compare(rows((b"a", 1, ONE), (b"b\xff", 1, ONE), (b"c", 1, None)), files({b"b\xff": (3, None)}), [b""])
    assert lasting(first, second.findings)["path"].to_pylist() == [b"a"]
    assert lasting(first, first).to_pylist() == first.to_pylist()


def test_only_what_a_row_asks_for_is_read() -> None:
    held = files({b"known": (1, ONE), b"asked": (1, None), b"sized": (1, None), b"bare": (1, None)})
    wanted = rows((b"known", 1, ONE), (b"asked", 1, ONE), (b"sized", 1, None))
    assert worth_reading(held, wanted, everything=False).to_pylist() == [False, True, False, False]
    assert worth_reading(held, wanted, everything=True).to_pylist() == [True, True, False, False]
    assert worth_reading(held, wanted, everything=False, present=("docs",)).to_pylist() == [False, True, True, False]


def test_a_link_is_there_and_is_not_compared() -> None:
    link = files({b"a": (0, None)}, type=[LINK])
    seen = compare(rows((b"a", 5, None)), link, [b""])
    assert not len(seen.findings)


_NAMES = st.binary(max_size=3)
_DIGESTS = st.sampled_from([None, ONE, TWO])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(_NAMES.filter(bool), st.none() | st.integers(0, 2), _DIGESTS), max_size=8),
    st.dictionaries(_NAMES, st.tuples(st.integers(0, 2), _DIGESTS), max_size=8),
)
def test_it_agrees_with_one_row_after_another(
    asked: list[tuple[bytes, int | None, bytes | None]], held: dict[bytes, tuple[int, bytes | None]]
) -> None:
    asked = [(path.replace(b"/", b"_"), size, digest) for path, size, digest in asked]
    seen = compare(rows(*asked), files(held), [b""])
    expected = []
    for path, size, digest in asked:
        if path not in held:
            expected.append((MISSING, path))
        elif size is not None and size != held[path][0]:
            expected.append((SIZE, path))
        elif digest is not None and held[path][1] not in (None, digest):
            expected.append((DIGEST, path))
    expected += [(EXTRA, path) for path in held if path not in {row[0] for row in asked}]
    found = [(row["kind"], row["path"]) for row in seen.findings.to_pylist()]
    assert sorted(found) == sorted(expected)
    assert lasting(seen.findings, seen.findings).to_pylist() == seen.findings.to_pylist()
    assert len(together([rows(*asked), rows(*asked)])) == 2 * len(asked)
