"""What is known of contents is found again, whatever its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from dr_pipelines import operations
from dr_pipelines.files.contents import SCHEMA, Contents
from dr_pipelines.progress import Silent
from tests.support.file_site import directory_site, root, take_now
from tests.support.file_tiers import DOCS


def test_every_content_is_found_and_no_other() -> None:
    known = [hashlib.sha256(str(number).encode()).digest() for number in range(1000)]
    # Heads that differ in their last bits only, and heads that do not differ at all.
    known += [bytes([first]) + bytes(6) + bytes([last]) * 25 for first in (0x3F, 0x80, 0xFF) for last in range(4)]
    known += [bytes(8) + bytes([last]) * 24 for last in range(3)]
    table = pa.table([known, [9] * len(known), ["a"] * len(known), [*range(len(known))]], schema=SCHEMA)
    contents = Contents(table, {"a"})
    assert [contents.find(digest) for digest in known] == [("a", place) for place in range(len(known))]
    assert contents.find(hashlib.sha256(b"another").digest()) is None


def test_a_copy_and_a_file_that_was_only_touched_are_not_stored_again(tmp_path: Path) -> None:
    site = directory_site(tmp_path)
    for number in range(50):
        (root(site) / f"{number}").write_text(f"{number} " * 1000)
    take_now(site)
    for path in [*root(site).iterdir()]:
        (root(site) / f"copy of {path.name}").write_bytes(path.read_bytes())
        path.touch()
    counts = take_now(site).counts
    assert (counts.new, counts.changed, counts.new_bytes) == (50, 0, 0)
    assert counts.read_bytes == counts.bytes
    assert operations.take_snapshot(site, DOCS, Silent(), read_all=True).counts.new_bytes == 0
