"""Two data directories: what is missing, new, stale or promised too much, and what is not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.postgres.page_compare import Comparison, RelationFile, compare
from dr_pipelines.postgres.visibility import mend_maps, place_of
from tests.unit.test_pages import SIZE, XMIN_FROZEN, heap

TABLE = RelationFile("base/5", 1234)
VISIBLE = heap(1, flags=4, infomask=XMIN_FROZEN)


def visibility(*bits: int) -> bytes:
    """A map: of each block whether it is all visible (1), all frozen too (3)."""
    page = bytearray(heap(lsn=3))
    for block, those in enumerate(bits):
        at, shift = place_of(block, SIZE)
        page[at] |= those << shift
    return bytes(page)


def write(side: Path, **files: bytes) -> Path:
    """`_1234_vm` is base/5/1234_vm."""
    for folder in ("global", "base/5", "pg_xact"):
        (side / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (side / "base" / "5" / name[1:].replace("__", ".")).write_bytes(content)
    return side


def compared(folder: Path, left: dict[str, bytes], right: dict[str, bytes]) -> Comparison:
    return compare(write(folder / "left", **left), write(folder / "right", **right), block_size=SIZE)


def blocks(seen: Comparison) -> list[tuple[str, tuple[int, ...]]]:
    return [(difference.fork, difference.blocks) for difference in seen.differences]


def test_blocks_that_differ_are_named(tmp_path: Path) -> None:
    left, right = heap(1) + heap(2) + heap(3), heap(1, command=4) + heap(9) + heap(3)
    seen = compared(tmp_path, {"_1234": left}, {"_1234": right})
    assert [(d.file, d.blocks, d.count) for d in seen.differences] == [(TABLE, (1,), 1)]
    assert (seen.relations, seen.pages, seen.masked) == (1, 3, 2)


@pytest.mark.parametrize("lacks", ["left", "right"])
def test_a_block_that_is_missing_is_a_difference_unless_it_is_new(tmp_path: Path, lacks: str) -> None:
    whole, cut = {"_1234": heap(1) + heap(2)}, {"_1234": heap(1)}
    assert blocks(compared(tmp_path / "a", *((cut, whole) if lacks == "left" else (whole, cut)))) == [("main", (1,))]
    grown = {"_1234": heap(1) + bytes(SIZE)}
    assert not blocks(compared(tmp_path / "b", *((cut, grown) if lacks == "left" else (grown, cut))))


def test_a_relation_that_only_one_side_has_is_a_difference(tmp_path: Path) -> None:
    assert blocks(compared(tmp_path, {"_1234": heap(1)}, {})) == [("main", (0,))]


def test_what_no_wal_restores_is_left_out(tmp_path: Path) -> None:
    left = {"_1234_fsm": heap(1), "_77": heap(1), "_77_init": heap(5), "t3_9": heap(1), "_pg_internal.init": b"a"}
    right = {"_1234_fsm": heap(2), "_77": heap(2), "_77_init": heap(5), "_pg_internal.init": b"b"}
    seen = compared(tmp_path, left, right)
    assert (blocks(seen), seen.other, seen.unlogged) == ([], [], 1)


def test_maps_of_files_and_transactions_count(tmp_path: Path) -> None:
    left, right = (
        write(tmp_path / "left", _pg_filenode__map=b"one"),
        write(tmp_path / "right", _pg_filenode__map=b"two"),
    )
    (left / "pg_xact" / "0000").write_bytes(b"\x55\x40" + bytes(SIZE))
    (right / "pg_xact" / "0000").write_bytes(b"\x55")
    assert compare(left, right, block_size=SIZE).other == ["base/5/pg_filenode.map", "pg_xact/0000"]


def test_a_map_that_promises_what_its_page_denies(tmp_path: Path) -> None:
    stale = {"_1234": heap(1) + VISIBLE, "_1234_vm": visibility(1, 3)}
    right = {"_1234": heap(1) + VISIBLE, "_1234_vm": visibility(0, 3)}
    assert blocks(compared(tmp_path, stale, right)) == [("vm", (0,))]


def test_a_map_that_promises_all_are_frozen(tmp_path: Path) -> None:
    locked = heap(1, flags=4, infomask=XMIN_FROZEN, xmax=900)
    stale, right = {"_1234": locked, "_1234_vm": visibility(3)}, {"_1234": locked, "_1234_vm": visibility(1)}
    assert blocks(compared(tmp_path, stale, right)) == [("vm", (0,))]


def test_a_map_that_promises_beyond_the_tables_end(tmp_path: Path) -> None:
    stale, right = {"_1234": VISIBLE, "_1234_vm": visibility(3, 1)}, {"_1234": VISIBLE, "_1234_vm": visibility(3)}
    assert blocks(compared(tmp_path, stale, right)) == [("vm", (1,))]


def test_a_map_that_says_less_than_is_true_costs_time_only(tmp_path: Path) -> None:
    assert not blocks(compared(tmp_path, {"_1234": VISIBLE}, {"_1234": VISIBLE, "_1234_vm": visibility(3)}))


def test_stale_maps_are_mended_where_an_incremental_brought_blocks(tmp_path: Path) -> None:
    locked = heap(1, flags=4, infomask=XMIN_FROZEN, xmax=900)
    side = write(tmp_path, _1234=heap(1) + VISIBLE + locked + heap(1), _1234_vm=visibility(3, 3, 3, 3, 3))
    assert mend_maps(side, {"base/5/1234": [0, 1, 2], "base/5/99": None}, SIZE, checksums=False) == 3
    # Block 3 did not come with it, so nothing of it changed; there is no block 4.
    assert (side / "base/5/1234_vm").read_bytes() == visibility(0, 3, 1, 3, 0)
    assert mend_maps(side, {"base/5/1234": None}, SIZE, checksums=False) == 1
    assert (side / "base/5/1234_vm").read_bytes() == visibility(0, 3, 1, 0, 0)
