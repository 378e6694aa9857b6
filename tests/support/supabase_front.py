"""Supabase Storage's S3 protocol as far as a repair needs it, before moto: `storage.objects` says what there is, and
each write is an object of its own, which that row's `version` names.

HEAD is answered from the row alone, GET needs the object too; a PUT writes an object of a new version, then its row,
and removes the object of the old version; conditions are ignored. Source: supabase/storage, `s3-handler.ts` and
`uploader.ts`.
"""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import unquote

from dr_pipelines.embedded.postgres import EmbeddedPostgres
from tests.support.azure_wire import Answer, Request, serving

TABLE = """
DROP SCHEMA IF EXISTS storage CASCADE;
CREATE SCHEMA storage;
CREATE TABLE storage.objects (
    id uuid DEFAULT gen_random_uuid(), bucket_id text, name text, created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT clock_timestamp(), metadata jsonb, version text, UNIQUE (bucket_id, name)
);
INSERT INTO storage.objects (bucket_id, name) VALUES ('another', 'not ours');
"""
_IGNORED = ("if-match", "if-none-match", "expect", "connection", "authorization")
_ANYBODY = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
"""moto asks that there is one."""


def upsert(bucket: str, name: str, etag: str, size: int, version: str) -> str:
    """What the service writes when an object has been."""
    metadata = json.dumps({"eTag": f'"{etag}"', "size": size})
    return (
        f"INSERT INTO storage.objects (bucket_id, name, metadata, version) "
        f"VALUES ('{bucket}', '{name}', '{metadata}', '{version}') ON CONFLICT (bucket_id, name) DO UPDATE "
        f"SET metadata = excluded.metadata, version = excluded.version, updated_at = clock_timestamp()"
    )


@dataclass
class SupabaseFront:
    """`behind`: the bucket of the server on `port` in which the objects lie."""

    server: EmbeddedPostgres
    port: int
    behind: str
    endpoint: str = ""

    def row(self, bucket: str, name: str) -> tuple[str, str, int] | None:
        """Version, ETag and size."""
        found = self.server.psql(
            f"SELECT version, trim(both '\"' from metadata->>'eTag'), metadata->>'size' FROM storage.objects "
            f"WHERE bucket_id = '{bucket}' AND name = '{name}'"
        )
        if not found:
            return None
        version, etag, size = found.split("|")
        return version, etag, int(size)

    def answer(self, asked: Request) -> Answer:
        bucket, _, key = asked.target.partition("?")[0].removeprefix("/").partition("/")
        if not key:
            return Answer(200)
        row = self.row(bucket, unquote(key))
        if asked.method == "PUT":
            return self._put(asked, bucket, key, row)
        if row is None:
            return Answer(404)
        version, etag, size = row
        if asked.method == "HEAD":
            now = format_datetime(datetime.now(UTC), usegmt=True)
            return Answer(200, {"etag": f'"{etag}"', "content-length": str(size), "last-modified": now})
        if asked.method == "DELETE":
            self.server.psql(f"DELETE FROM storage.objects WHERE bucket_id = '{bucket}' AND name = '{unquote(key)}'")
        return self.past(asked.method, f"{key}/{version}", asked.headers)

    def past(self, method: str, key: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Of an object itself, past the service."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        kept = {name: text for name, text in (headers or {}).items() if name not in _IGNORED}
        try:
            connection.request(method, f"/{self.behind}/{key}", body or None, kept | _ANYBODY)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def _put(self, asked: Request, bucket: str, key: str, row: tuple[str, str, int] | None) -> Answer:
        version = str(uuid.uuid4())
        told = self.past("PUT", f"{key}/{version}", asked.headers, asked.body)
        etag = told.headers["etag"].strip('"')
        self.server.psql(upsert(bucket, unquote(key), etag, len(asked.body), version))
        if row is not None:
            self.past("DELETE", f"{key}/{row[0]}")
        return Answer(200, {"etag": f'"{etag}"'})


@contextmanager
def supabase_before(server: EmbeddedPostgres, port: int, behind: str) -> Iterator[SupabaseFront]:
    front = SupabaseFront(server, port, behind)
    server.psql(TABLE)
    with serving(front.answer, lambda: datetime.now(UTC)) as front.endpoint:
        yield front
