"""What is known of files over time: versions of a path, differences of snapshots and of the source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dr_pipelines.errors import BackupNotFound, UsageError
from dr_pipelines.files.diff import LiveContents, by_digest, by_time, diff_tables, difference, live_rows
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.versions import snapshot_with, versions_of
from dr_pipelines.repository.snapshot_manifest import Snapshot
from tests.support.file_sets import FileSet
from tests.support.file_tiers import flip


@pytest.fixture
def files(tmp_path: Path) -> FileSet:
    return FileSet(tmp_path / "set")


def take(files: FileSet, content: bytes | None) -> Snapshot:
    files.write({f"more-{number}": b"m" for number in range(9) if not files.taken})
    path = files.source / "a"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
        os.utime(path, (files.taken, files.taken))
    return files.take()


def test_each_version_is_told_with_the_snapshots_that_hold_it(files: FileSet, tmp_path: Path) -> None:
    taken = [take(files, content) for content in (None, b"1", b"1", b"22", None, None, b"1")]
    assert len({manifest.table.key for manifest in taken}) < len(taken)  # some are changes of another
    found = versions_of(files.read(), b"a")
    labels = [manifest.label for manifest in taken]
    assert [(one.kind, one.size, one.snapshots, one.first, one.last) for one in found] == [
        ("file", 1, 2, labels[1], labels[2]),
        ("file", 2, 1, labels[3], labels[3]),
        ("deleted", None, 2, labels[4], labels[5]),
        ("file", 1, 1, labels[6], labels[6]),
    ]
    older = found[1].sha256
    assert older is not None
    assert found[0].sha256 == found[3].sha256 != older
    assert snapshot_with(found, older[:6].upper()) == labels[3]
    assert snapshot_with(found, str(found[0].sha256)) == labels[6]
    for digits in (older[:3], "ffffffff", ""):
        with pytest.raises(UsageError, match="no single version"):
            snapshot_with(found, digits)
    files.restore(tmp_path / "target", labels[3], paths=["a"])
    assert (tmp_path / "target" / "a").read_bytes() == b"22"
    with pytest.raises(BackupNotFound, match="has never"):
        versions_of(files.read(), b"never")


def test_a_damaged_table_leaves_its_snapshot_out(files: FileSet) -> None:
    first, second = take(files, b"1"), take(files, b"22")
    assert second.changes is not None
    flip(files.tiers[0].store, second.changes.key)
    assert [one.last for one in versions_of(files.read(), b"a")] == [first.label]
    assert any(second.label in note for note in files.notes)


def changed_source(files: FileSet) -> Snapshot:
    files.write({"same": b"s", "content": b"c", "mode": b"m", "gone": b"g", "becomes-link": b"l", "touched": b"t"})
    (files.source / "link").symlink_to("one")
    manifest = files.take()
    seen = (files.source / "content").stat()
    files.write({"content": b"C", "new\nline": b"n"})
    os.utime(files.source / "content", ns=(seen.st_atime_ns, seen.st_mtime_ns))  # nothing but reading shows it
    os.utime(files.source / "touched", (1, 1))
    (files.source / "mode").chmod(0o600)
    (files.source / "gone").unlink()
    (files.source / "becomes-link").unlink()
    (files.source / "becomes-link").symlink_to("same")
    (files.source / "link").unlink()
    (files.source / "link").symlink_to("another")
    return manifest


EXPECTED = {
    "becomes-link": "type", "content": "changed", "gone": "removed", "link": "changed", "mode": "mode",
    "new\\nline": "added",
}  # fmt: skip


def test_two_snapshots_differ_by_content(files: FileSet) -> None:
    first = changed_source(files)
    second = files.take()
    tiers = files.read()
    found = diff_tables(tiers.table(first), tiers.table(second), by_digest)
    told = difference(first.label, second.label, "SHA-256", found)
    assert {change.path: change.what for change in told.changes} == EXPECTED
    assert told.counts == {"added": 1, "changed": 2, "removed": 1, "type": 1, "mode": 1}
    few = difference(first.label, second.label, "SHA-256", found, 2)
    assert len(few.changes) == 2
    assert few.counts == told.counts
    assert not len(diff_tables(tiers.table(first), tiers.table(first), by_digest))


def test_the_source_differs_by_time_or_by_content(files: FileSet) -> None:
    manifest = changed_source(files)
    rows, source = files.read().table(manifest), Directory(files.source)
    by_size = difference("", "live", "", diff_tables(rows, live_rows(source), by_time))
    seen = {change.path: change.what for change in by_size.changes}
    assert seen == {**{path: what for path, what in EXPECTED.items() if path != "content"}, "touched": "changed"}
    by_content = difference("", "live", "", diff_tables(rows, live_rows(source), LiveContents(source)))
    assert {change.path: change.what for change in by_content.changes} == EXPECTED
