"""Files of Supabase Storage: `storage.objects` as its migrations make it, and another S3 server for the contents."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.operations import poll, reconcile, restore_files, take_snapshot
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from dr_pipelines.storage.bucket import ObjectHeaders

TABLE = """
CREATE SCHEMA storage;
CREATE TABLE storage.objects (
    id uuid DEFAULT gen_random_uuid(), bucket_id text, name text, created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT clock_timestamp(), metadata jsonb, version text, UNIQUE (bucket_id, name)
);
INSERT INTO storage.objects (bucket_id, name) VALUES ('another', 'not ours');
"""


@dataclass
class Project:
    server: EmbeddedPostgres
    s3: EmbeddedS3
    folder: Path
    looks: int = 0

    def site(self) -> Site:
        """A minute later each time."""
        self.looks += 1
        access = self.s3.access
        plan = {
            "version": 1, "name": "test", "encryption": "none", "state_dir": str(self.folder / "state"),
            "storage": {
                "disk": {"type": "local", "path": str(self.folder / "repository")},
                "avatars": {
                    "type": "s3", "endpoint": access.endpoint, "bucket": "avatars",
                    "access_key_id": self.secret("id", access.access_key_id),
                    "secret_access_key": self.secret("key", access.secret_access_key),
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

    def secret(self, name: str, value: str) -> str:
        path = self.folder / name
        path.write_text(value)
        path.chmod(0o600)
        return f"${{FILE:{path}}}"

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
        metadata = json.dumps({"eTag": f'"{hashlib.md5(data).hexdigest()}"', "size": len(data)})
        self.server.psql(
            f"INSERT INTO storage.objects (bucket_id, name, metadata, version) "
            f"VALUES ('avatars', '{name}', '{metadata}', '{uuid.uuid4()}') ON CONFLICT (bucket_id, name) DO UPDATE "
            f"SET metadata = excluded.metadata, version = excluded.version, updated_at = clock_timestamp()"
        )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    base = open_folder("dr-test-supabase-")
    server, s3 = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",)), EmbeddedS3(tmp_path / "s3")
    s3.create_bucket("avatars")
    try:
        server.start()
        s3.start()
        server.psql(TABLE)
        made = Project(server, s3, tmp_path)
        made.upload("a.png", "a")
        made.upload("folder/b ü.png", "b")
        made.site().repository("avatars", "primary").initialise()
        yield made
    finally:
        s3.stop()
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


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
