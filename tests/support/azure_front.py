"""A server in front of Azurite that adds what Azurite has not and Azure documents: version-level immutability, old
versions, soft delete, and an archive whose rehydration takes until the test says that it is over.

Real HTTP, so that the real SDK drives it. Whoever asks is let in: the front signs by itself what it hands on. Sources:
Microsoft's "Version-level WORM policies for immutable blob data", "Blob rehydration from the archive tier" and the
Blob service's REST reference.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from xml.etree import ElementTree as Xml

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.support.stores import AZURITE_KEY

_UNTIL, _MODE = "x-ms-immutability-policy-until-date", "x-ms-immutability-policy-mode"
_OURS = {"authorization", "host", "x-ms-rehydrate-priority", _UNTIL, _MODE}
_HOPS = {"transfer-encoding", "connection", "keep-alive", "content-length", "date"}
_KEPT = ("last-modified", "etag", "content-type", "content-md5", "x-ms-blob-type", "x-ms-creation-time")


@dataclass(frozen=True)
class Manners:
    """How an account is set up, and where the service is known or feared to do otherwise. `locks_uploads`: an upload
    may lock at once; otherwise its policy is unlocked, whatever it asks. `deletes_hide`: to delete a locked blob
    succeeds, and its bytes are an old version."""

    immutable: bool = True
    soft_delete: bool = False
    locks_uploads: bool = True
    deletes_hide: bool = False
    ignores_policies: bool = False


@dataclass(frozen=True)
class _Policy:
    until: datetime
    mode: str

    def headers(self) -> dict[str, str]:
        return {_UNTIL: format_datetime(self.until, usegmt=True), _MODE: self.mode.lower()}


@dataclass
class _Version:
    """`data` and `headers` are None while Azurite has them: of the current one."""

    id: str
    policy: _Policy | None = None
    archived: bool = False
    arriving: bool = False
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def comp(self) -> str:
        return self.query.get("comp", "")

    @property
    def is_of_a_blob(self) -> bool:
        return self.path.count("/") > 2 and "restype" not in self.query


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_well(self) -> bool:
        return self.status < 300

    def having(self, **more: str) -> _Answer:
        return replace(self, headers=self.headers | {name.replace("_", "-"): value for name, value in more.items()})


def _refused(status: int, code: str) -> _Answer:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return _Answer(status, {"x-ms-error-code": code, "content-type": "application/xml"}, body.encode())


_IMMUTABLE, _ARCHIVED, _ABSENT = (
    _refused(409, "BlobImmutableDueToPolicy"),
    _refused(409, "BlobArchived"),
    _refused(404, "BlobNotFound"),
)


class AzureFront:
    """The state machine. `passed` moves the service's clock; `release` ends every rehydration under way; `priorities`
    is what they were asked for with."""

    def __init__(self, port: int, manners: Manners) -> None:
        self._port, self._manners = port, manners
        self._lock = threading.RLock()
        self._current: dict[str, _Version] = {}
        self._old: dict[str, list[_Version]] = {}
        self._deleted: dict[str, _Version] = {}
        self._made = 0
        self.passed = timedelta()
        self.priorities: list[str] = []
        self.endpoint = ""

    def release(self) -> None:
        with self._lock:
            for version in self._current.values():
                if version.arriving:
                    version.arriving = version.archived = False

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def answer(self, asked: _Request) -> _Answer:
        with self._lock:
            if not asked.is_of_a_blob:
                return self._of_container(asked)
            if "versionid" not in asked.query:
                return self._of_current(asked)
            return self._of_version(asked, asked.query["versionid"])

    def _of_container(self, asked: _Request) -> _Answer:
        if asked.comp == "list" and asked.query.get("restype") == "container":
            return self._listing(asked)
        told = self._forward(asked)
        immutable = str(self._manners.immutable).lower()
        return told.having(**{"x-ms-immutable-storage-with-versioning-enabled": immutable}) if not asked.comp else told

    def _of_current(self, asked: _Request) -> _Answer:
        held = self._current.get(asked.path)
        match asked.method, asked.comp:
            case ("PUT", "" | "blocklist"):
                return self._write(asked, held)
            case ("PUT", "undelete"):
                return self._undelete(asked)
            case ("PUT" | "DELETE", "immutabilityPolicies") if held and self._manners.immutable:
                return self._police(asked, held)
            case ("PUT", "tier") if held:
                return self._move(asked, held)
            case ("DELETE", "") if held:
                return self._delete(asked, held)
            case ("GET" | "HEAD", "") if held:
                return _ARCHIVED if held.archived and asked.method == "GET" else self._told_of(asked, held)
        return self._forward(asked)

    def _of_version(self, asked: _Request, version: str) -> _Answer:
        current = self._current.get(asked.path)
        if current is not None and current.id == version:
            if asked.method == "DELETE" and not asked.comp:
                return _refused(403, "OperationNotAllowedOnRootBlob")
            return self._of_current(replace(asked, query=_without(asked.query, "versionid")))
        held = next((old for old in self._old.get(asked.path, []) if old.id == version), None)
        if held is None:
            return _ABSENT
        if asked.comp == "immutabilityPolicies":
            return self._police(asked, held)
        if asked.method == "DELETE":
            if self._is_protected(held):
                return _IMMUTABLE
            self._old[asked.path].remove(held)
            return _Answer(202)
        return _ARCHIVED if held.archived and asked.method == "GET" else _read(asked, held)

    def _write(self, asked: _Request, held: _Version | None) -> _Answer:
        keeps = held and self._manners.immutable and asked.headers.get("if-none-match") != "*"
        before = self._whole(asked.path, held) if held and keeps else None
        archived = asked.headers.get("x-ms-access-tier") == "Archive"
        source = self._source(asked)
        arriving = source is not None and source.archived
        if arriving and (archived or "x-ms-access-tier" not in asked.headers):
            return _ARCHIVED
        told = self._copy(asked, source) if source is not None and source.data else self._forward(asked)
        if not told.is_well:
            return told
        if before:
            self._old.setdefault(asked.path, []).append(before)
        if arriving:
            self.priorities.append(asked.headers.get("x-ms-rehydrate-priority", ""))
        made = _Version(self._new_id(), self._uploaded(asked), archived or arriving, arriving)
        self._current[asked.path] = made
        return told.having(x_ms_version_id=made.id)

    def _uploaded(self, asked: _Request) -> _Policy | None:
        if _UNTIL not in asked.headers or self._manners.ignores_policies or not self._manners.immutable:
            return None
        policy = _policy_of(asked)
        return policy if self._manners.locks_uploads else replace(policy, mode="Unlocked")

    def _source(self, asked: _Request) -> _Version | None:
        """What is copied: an old version has its bytes with it."""
        url = urlsplit(asked.headers.get("x-ms-copy-source", ""))
        current, version = self._current.get(unquote(url.path)), parse_qs(url.query).get("versionid", [""])[0]
        if not version or (current is not None and current.id == version):
            return current
        return next(old for old in self._old[unquote(url.path)] if old.id == version)

    def _copy(self, asked: _Request, source: _Version) -> _Answer:
        metadata = {name: value for name, value in source.headers.items() if name.startswith("x-ms-meta-")}
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": asked.headers["x-ms-version"], **metadata}
        told = self._forward(replace(asked, headers=headers, body=source.data))
        return replace(told, status=202).having(x_ms_copy_id="copy", x_ms_copy_status="success")

    def _undelete(self, asked: _Request) -> _Answer:
        gone = self._deleted.pop(asked.path, None)
        if gone is None:
            return _Answer(200) if asked.path in self._current else _ABSENT
        self._copy(replace(asked, query={}), gone)
        self._current[asked.path] = replace(gone, data=b"", headers={})
        return _Answer(200)

    def _police(self, asked: _Request, held: _Version) -> _Answer:
        locked = held.policy is not None and held.policy.mode == "Locked"
        if asked.method == "DELETE":
            if locked:
                return _refused(409, "ImmutabilityPolicyDeleteOnLockedPolicy")
            held.policy = None
            return _Answer(200)
        wanted = _policy_of(asked)
        if wanted.until <= self.now():
            return _refused(400, "InvalidHeaderValue")
        if locked and held.policy and (wanted.mode != "Locked" or wanted.until < held.policy.until):
            return _IMMUTABLE
        if not self._manners.ignores_policies:
            held.policy = wanted
        return _Answer(200, wanted.headers())

    def _move(self, asked: _Request, held: _Version) -> _Answer:
        if asked.headers["x-ms-access-tier"] == "Archive":
            held.archived = True
            return _Answer(200)
        if held.archived:
            held.arriving = True
            return _Answer(202)
        return self._forward(asked)

    def _delete(self, asked: _Request, held: _Version) -> _Answer:
        if self._is_protected(held) and not self._manners.deletes_hide:
            return _IMMUTABLE
        before = self._whole(asked.path, held)
        told = self._forward(asked)
        if told.is_well:
            del self._current[asked.path]
            if self._manners.immutable:
                self._old.setdefault(asked.path, []).append(before)
            elif self._manners.soft_delete:
                self._deleted[asked.path] = before
        return told

    def _is_protected(self, held: _Version) -> bool:
        return held.policy is not None and held.policy.until > self.now()

    def _whole(self, path: str, held: _Version) -> _Version:
        told = self._forward(_Request("GET", path, {}, {"x-ms-version": "2021-12-02"}))
        kept = {name: value for name, value in told.headers.items() if name in _KEPT or name.startswith("x-ms-meta-")}
        return replace(held, data=told.body, headers=kept)

    def _told_of(self, asked: _Request, held: _Version) -> _Answer:
        told = self._forward(asked)
        if not told.is_well:
            return told
        more = _marks(held) | {"x-ms-is-current-version": "true"}
        if held.archived:
            told.headers.pop("x-ms-access-tier-inferred", None)
        if held.arriving:
            more |= {"x-ms-archive-status": "rehydrate-pending-to-hot", "x-ms-copy-status": "pending"}
        return told.having(**(more if self._manners.immutable or held.archived else {}))

    def _listing(self, asked: _Request) -> _Answer:
        include = asked.query.get("include", "").split(",")
        plain = ",".join(name for name in include if name not in ("versions", "snapshots"))
        query = _without(asked.query, "include") | ({"include": plain} if plain else {})
        told = self._forward(replace(asked, query=query))
        if not told.is_well:
            return told
        root = Xml.fromstring(told.body)
        blobs = root.find("Blobs")
        assert blobs is not None
        for blob in blobs:
            if (held := self._current.get(f"{asked.path}/{blob.findtext('Name')}")) is not None:
                _mark(blob, held, with_version="versions" in include and self._manners.immutable)
        if "versions" in include and not root.findtext("NextMarker"):
            for path, old in self._old.items():
                if path.startswith(f"{asked.path}/{asked.query.get('prefix', '')}"):
                    blobs.extend(_listed(path.removeprefix(f"{asked.path}/"), version) for version in old)
        return replace(told, body=Xml.tostring(root, encoding="utf-8", xml_declaration=True))

    def _forward(self, asked: _Request) -> _Answer:
        headers = {name: value for name, value in asked.headers.items() if name not in _OURS}
        if headers.get("x-ms-access-tier") == "Archive":
            del headers["x-ms-access-tier"]
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        path = "/".join(map(_quoted, asked.path.split("/")))
        connection.request(asked.method, f"{path}?{urlencode(asked.query)}&{_token()}", asked.body, headers)
        told = connection.getresponse()
        answer = _Answer(told.status, {k.lower(): v for k, v in told.getheaders()}, told.read())
        connection.close()
        return answer

    def _new_id(self) -> str:
        self._made += 1
        return f"{datetime.now(UTC):%Y-%m-%dT%H:%M}:00.{self._made:07}Z"


@contextmanager
def azure_front(port: int, manners: Manners | None = None) -> Iterator[AzureFront]:
    """In front of Azurite on `port`, while the block runs."""
    front = AzureFront(port, manners or Manners())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = _Request(self.command, unquote(url.path), query, _lower(self.headers), body)
            told = front.answer(asked)
            size = told.headers.get("content-length", "0") if self.command == "HEAD" else str(len(told.body))
            self.send_response_only(told.status)
            for name, value in told.headers.items():
                if name not in _HOPS:
                    self.send_header(name, value)
            self.send_header("Date", format_datetime(front.now(), usegmt=True))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    front.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()


def _policy_of(asked: _Request) -> _Policy:
    return _Policy(parsedate_to_datetime(asked.headers[_UNTIL]), asked.headers.get(_MODE, "Unlocked").capitalize())


def _marks(held: _Version) -> dict[str, str]:
    marks = {"x-ms-version-id": held.id} | (held.policy.headers() if held.policy else {})
    return marks | ({"x-ms-access-tier": "Archive"} if held.archived else {})


def _read(asked: _Request, held: _Version) -> _Answer:
    headers, size = held.headers | _marks(held), len(held.data)
    if asked.method == "HEAD":
        return _Answer(200, headers | {"content-length": str(size)})
    wanted = asked.headers.get("x-ms-range") or asked.headers.get("range") or f"bytes=0-{size - 1}"
    start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
    body = held.data[start : end + 1]
    return _Answer(206, headers | {"content-range": f"bytes {start}-{start + len(body) - 1}/{size}"}, body)


def _mark(blob: Xml.Element, held: _Version, *, with_version: bool) -> None:
    properties = blob.find("Properties")
    assert properties is not None
    if held.archived:
        for told in [tag for tag in properties if tag.tag in ("AccessTier", "AccessTierInferred")]:
            properties.remove(told)
        Xml.SubElement(properties, "AccessTier").text = "Archive"
    if with_version:
        Xml.SubElement(blob, "VersionId").text = held.id
        Xml.SubElement(blob, "IsCurrentVersion").text = "true"


def _listed(name: str, version: _Version) -> Xml.Element:
    blob = Xml.Element("Blob")
    Xml.SubElement(blob, "Name").text = name
    Xml.SubElement(blob, "VersionId").text = version.id
    properties = Xml.SubElement(blob, "Properties")
    told = version.headers
    for tag, value in (
        ("Last-Modified", told.get("last-modified")),
        ("Etag", told.get("etag")),
        ("Content-Length", str(len(version.data))),
        ("BlobType", "BlockBlob"),
    ):
        Xml.SubElement(properties, tag).text = value
    return blob


def _without(query: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in query.items() if key != name}


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _quoted(part: str) -> str:
    return urlencode({"": part})[1:]


def _token() -> str:
    return generate_account_sas(
        "devstoreaccount1",
        AZURITE_KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions.from_string("rwdlacuptfxi"),
        expiry=datetime.now(UTC) + timedelta(days=1),
    )
