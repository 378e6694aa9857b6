"""Rows of a real database against the files of a directory, on the source and in snapshots."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import BackupNotFound, ServerError, UsageError
from dr_pipelines.operations import Reconciliation, reconcile, take_snapshot
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site

DIGEST = {"digest": "sha256", "size": "bytes"}


@dataclass
class Place:
    """A server, a folder of files, and a plan in which rows of `docs.files` point at them."""

    server: EmbeddedPostgres
    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def site(self, *, clock: Any = None, **changes: Any) -> Site:
        reference = {"server": "shop", "table": "docs.files", "path": '"Path"', "prefix": "store"} | DIGEST | changes
        plan = {
            "version": 1, "name": "test", "encryption": "none", "state_dir": str(self.folder / "state"),
            "storage": {"disk": {"type": "local", "path": str(self.folder / "repository")}},
            "databases": {"shop": {
                "connection": {"host": "127.0.0.1", "port": self.server.port, "user": "postgres"},
                "storage": {"primary": "disk"}, "schedule": {"full": "daily"},
                "retention": {"daily": 7},
            }},
            "file_storage": {"docs": {
                "schedule": "hourly", "retention": "30 days", "storage": {"primary": "disk"},
                "source": {"type": "directory", "path": str(self.files)}, "references": {"rows": reference},
            }},
        }  # fmt: skip
        return Site(Plan.model_validate(plan), clock=clock or SystemClock())

    def snapshot(self, site: Site | None = None) -> str:
        site = site or self.site()
        site.repository("docs", "primary").initialise()
        return take_snapshot(site, "docs", Silent()).label

    def add(self, path: str, content: str = "content", *, row: bool = True, file: bool = True) -> None:
        if file:
            place = self.files / "store" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        if row:
            digest = hashlib.sha256(content.encode()).hexdigest()
            self.server.psql(f"INSERT INTO docs.files VALUES ('{path}', {len(content.encode())}, '{digest}')")

    def look(self, **more: Any) -> Reconciliation:
        return reconcile(self.site(), "docs", Silent(), **{"settled": 0.0, **more})


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    base = open_folder("dr-test-rows-")
    server = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",))
    server.start()
    yield server
    server.kill()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def place(server: EmbeddedPostgres, tmp_path: Path) -> Place:
    server.psql("DROP SCHEMA IF EXISTS docs CASCADE; CREATE SCHEMA docs")
    server.psql(
        'CREATE TABLE docs.files ("Path" text, bytes int, sha256 text, changed timestamptz DEFAULT clock_timestamp())'
    )
    made = Place(server, tmp_path)
    (made.files / "store").mkdir(parents=True)
    for name in ("a", "b/c", "naïve ☃"):
        made.add(name, name)
    return made


def findings(seen: Reconciliation) -> set[tuple[str, str]]:
    return {(row["kind"], row["path"]) for rows in seen.check.details["findings"].values() for row in rows}


def test_rows_and_files_agree(place: Place) -> None:
    (place.files / "elsewhere").write_text("no row, and outside of the prefix")
    seen = place.look()
    assert seen.check.verdict is Verdict.PASS, seen.check
    assert (seen.check.details["rows"], seen.check.details["contents_compared"]) == (3, 3)


@pytest.mark.parametrize("snapshot", [False, True])
def test_what_does_not_agree_is_named(place: Place, snapshot: bool) -> None:
    place.add("lost", file=False)
    place.add("stray", row=False)
    place.add("longer")
    place.add("other")
    if snapshot:
        place.snapshot()
    (place.files / "store/longer").write_text("content and more")
    (place.files / "store/other").write_text("CONTENT")
    seen = place.look()
    assert seen.check.verdict is Verdict.FAIL
    assert findings(seen) == {
        ("missing", "store/lost"), ("extra", "store/stray"), ("size", "store/longer"), ("digest", "store/other"),
    }  # fmt: skip


def test_files_that_a_snapshot_knows_are_read_only_when_that_is_asked(place: Place) -> None:
    # Written to well before the snapshot, by its clock.
    place.snapshot(place.site(clock=FixedClock(datetime.now(UTC) + timedelta(minutes=1))))
    read: list[int] = []

    class Counting(Silent):
        def advance(self, count: int) -> None:
            read.append(count)

    seen = reconcile(place.site(), "docs", Counting(), settled=0.0)
    assert (seen.check.details["contents_compared"], read) == (3, [])
    reconcile(place.site(), "docs", Counting(), settled=0.0, read_all=True)
    assert sum(read) == sum(len(name.encode()) for name in ("a", "b/c", "naïve ☃"))


class Meanwhile(SystemClock):
    """Runs something in the pause before what differs is looked at again."""

    def __init__(self, change: Any) -> None:
        self._change = change

    def wait(self, seconds: float, stop: Any = None) -> bool:
        self._change()
        return False


def test_what_is_on_its_way_is_no_finding(place: Place) -> None:
    place.add("uploaded", row=False)
    place.add("announced", file=False)
    place.add("rewritten")
    (place.files / "store/rewritten").write_text("another")

    def arrive() -> None:
        place.add("uploaded", file=False)
        place.add("announced", row=False)
        place.server.psql("DELETE FROM docs.files WHERE \"Path\" = 'rewritten'")
        place.add("rewritten", "another", file=False)

    seen = reconcile(place.site(clock=Meanwhile(arrive)), "docs", Silent())
    assert seen.check.verdict is Verdict.PASS, seen.check
    place.add("for good", file=False)
    seen = reconcile(place.site(clock=Meanwhile(lambda: place.add("later", row=False))), "docs", Silent())
    assert findings(seen) == {("missing", "store/for good")}


def test_a_folder_that_cannot_be_read_is_not_proven(place: Place) -> None:
    place.server.psql("INSERT INTO docs.files VALUES ('b', NULL, NULL)")
    assert place.look().check.verdict is Verdict.PASS  # a folder is there too
    shutil.rmtree(place.files / "store")
    (place.files / "store").write_text("no folder")
    assert place.look().check.verdict is Verdict.FAIL


def test_no_rows_prove_nothing(place: Place) -> None:
    place.server.psql("TRUNCATE docs.files")
    shutil.rmtree(place.files / "store")
    assert place.look().check.verdict is Verdict.NOT_PROVEN


def test_a_snapshot(place: Place) -> None:
    first = place.snapshot()
    assert place.look(against=first).check.verdict is Verdict.PASS
    place.add("younger")
    seen = place.look(against="latest")
    assert (seen.against, seen.check.verdict) == (first, Verdict.NOT_PROVEN)
    assert findings(seen) == {("missing", "store/younger")}
    told = reconcile(place.site(changed="changed"), "docs", Silent(), against=first)
    assert told.check.verdict is Verdict.PASS, told.check
    there = place.look(against=first, database_at=f"127.0.0.1:{place.server.port}")
    assert there.check.verdict is Verdict.FAIL
    assert place.look(against="2099-01-01T00:00:00Z").against == first
    with pytest.raises(BackupNotFound, match="whole by 2001"):
        place.look(against="2001-01-01T00:00:00Z")


def test_what_is_asked_wrongly(place: Place) -> None:
    with pytest.raises(UsageError, match="no address"):
        place.look(database_at="nowhere")
    with pytest.raises(ServerError, match="does not exist") as raised:
        reconcile(place.site(path="nothing"), "docs", Silent())
    assert raised.value.sqlstate == "42703"
    with pytest.raises(ServerError, match="identifier"):
        reconcile(place.site(table="docs.files; SELECT 1"), "docs", Silent())
