"""Files of Supabase Storage: `storage.objects` as its migrations make it, and another S3 server for the contents."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.embedded.stores import EmbeddedS3, S3Access
from dr_pipelines.operations import poll, reconcile, restore_files, take_snapshot
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from dr_pipelines.storage.bucket import ObjectHeaders
from tests.support.bucket_shop import secret
from tests.support.stores import moto_bucket
from tests.support.supabase_front import TABLE, SupabaseFront, supabase_before, upsert


@dataclass
class Project:
    server: EmbeddedPostgres
    access: S3Access
    folder: Path
    looks: int = 0

    def site(self) -> Site:
        """A minute later each time."""
        self.looks += 1
        plan = {
            "version": 1, "name": "test", "encryption": "none", "state_dir": str(self.folder / "state"),
            "storage": {
                "disk": {"type": "local", "path": str(self.folder / "repository")},
                "avatars": {
                    "type": "s3", "profile": "supabase", "endpoint": self.access.endpoint, "bucket": "avatars",
                    "access_key_id": secret(self.folder, "id", self.access.access_key_id),
                    "secret_access_key": secret(self.folder, "key", self.access.secret_access_key),
                },
            },
            "databases": {"shop": {
                "connection": {"host": "127.0.0.1", "port": self.server.port, "user": "postgres"},
                "storage": {"primary": "disk"}, "schedule": {"full": "daily"}, "retention": {"daily": 7},
            }},
            "file_storage": {"avatars": {
                "schedule": "hourly", "retention": "30 days", "storage": {"primary": "disk"},
                "source": {"type": "bucket", "store": "avatars"},
                "references": {"storage": {"server": "shop", "supabase": "avatars"}},
            }},
        }  # fmt: skip
        return Site(Plan.model_validate(plan), clock=FixedClock(datetime.now(UTC) + timedelta(minutes=self.looks)))

    def put(self, name: str, data: bytes) -> None:
        self.site().bucket("avatars").put(name, [data], ObjectHeaders(), size=len(data), if_absent=False)

    def remove(self, name: str) -> None:
        """The object alone."""
        bucket = self.site().bucket("avatars")
        bucket.delete(bucket.stat(name)[0])

    def upload(self, name: str, content: str, *, there: bool = True) -> None:
        """As the service does: the object, then its row."""
        data = content.encode()
        if there:
            self.put(name, data)
        self.server.psql(upsert("avatars", name, hashlib.md5(data).hexdigest(), len(data), str(uuid.uuid4())))


@pytest.fixture
def project(rows_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Project]:
    s3 = EmbeddedS3(tmp_path / "s3")
    s3.create_bucket("avatars")
    try:
        s3.start()
        rows_server.psql(TABLE)
        made = Project(rows_server, s3.access, tmp_path)
        made.upload("a.png", "a")
        made.upload("folder/b ü.png", "b")
        made.site().repository("avatars", "primary").initialise()
        yield made
    finally:
        s3.stop()


def test_rows_list_the_bucket_and_reads_prove_it(project: Project) -> None:
    project.put("without a row", b"no row, no object")
    first = take_snapshot(project.site(), "avatars", Silent())
    assert first.counts.files == 2 and "listed by its rows" in first.source
    again = take_snapshot(project.site(), "avatars", Silent())
    assert again.counts.read_bytes == 0
    seen = reconcile(project.site(), "avatars", Silent(), read_all=True)
    assert seen.check.verdict is Verdict.PASS, seen.check
    project.upload("a.png", "overwritten")
    polled = poll(project.site(), "avatars", Silent())
    assert polled.changed == 1 and polled.snapshot is not None and polled.snapshot.counts.changed == 1
    project.remove("folder/b ü.png")
    project.upload("never arrived.png", "c", there=False)
    # By its listing every row has its object.
    lost = reconcile(project.site(), "avatars", Silent(), read_all=True)
    named = [row["path"] for row in lost.check.details["findings"]["missing"]]
    assert lost.check.verdict is Verdict.FAIL and sorted(named) == ["folder/b ü.png", "never arrived.png"]
    restore_files(project.site(), "avatars", first.label, project.folder / "back", Silent())
    assert (project.folder / "back/folder/b ü.png").read_text() == "b"
    assert (project.folder / "back/a.png").read_text() == "a"


@pytest.fixture
def service(rows_server: EmbeddedPostgres, moto_port: int, tmp_path: Path) -> Iterator[tuple[Project, SupabaseFront]]:
    _, behind = moto_bucket(moto_port)
    with supabase_before(rows_server, moto_port, behind) as front:
        made = Project(rows_server, S3Access(front.endpoint, "test", "testtest"), tmp_path)
        made.site().repository("avatars", "primary").initialise()
        yield made, front


def test_a_repair_leaves_rows_that_name_their_objects(service: tuple[Project, SupabaseFront]) -> None:
    project, front = service
    for name in ("lost.png", "swapped.png", "older.png", "right.png"):
        project.put(name, f"{name} as it was".encode())
    take_snapshot(project.site(), "avatars", Silent())
    was = {name: front.row("avatars", name) for name in ("lost.png", "swapped.png", "older.png", "right.png")}
    project.put("older.png", b"newer than the point to which the database is brought back")
    for name, row in was.items():
        assert row is not None
        version, etag, size = row
        if name == "lost.png":
            assert front.past("DELETE", f"{name}/{version}").is_well
        elif name == "swapped.png":
            assert front.past("PUT", f"{name}/{version}", body=b"of someone with the key of what lies behind").is_well
        elif name == "older.png":  # the database's own recovery: its row names a version that is gone
            project.server.psql(upsert("avatars", name, etag, size, version))
    done = reconcile(project.site(), "avatars", Silent(), read_all=True, settled=0.0, mend=True)
    assert done.repaired is not None and done.check.verdict is Verdict.PASS, done
    assert sorted(done.repaired.restored) == ["lost.png", "older.png"]
    assert [*done.repaired.replaced] == ["swapped.png"]
    for name, row in was.items():
        now = front.row("avatars", name)
        assert now is not None and row is not None and now[1:] == row[1:]
        assert (now[0] == row[0]) is (name == "right.png")
        assert front.past("GET", f"{name}/{now[0]}").body.decode() == f"{name} as it was"
    aside, _ = project.site().bucket("avatars").stat(done.repaired.replaced["swapped.png"])
    assert aside.size == len("of someone with the key of what lies behind")
