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
from email.utils import format_datetime, parsedate_to_datetime
from functools import cache
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from xml.etree import ElementTree as Xml

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.support.azure_wire import Answer, Request, refused, serving
from tests.support.stores import AZURITE_KEY

_UNTIL, _MODE = "x-ms-immutability-policy-until-date", "x-ms-immutability-policy-mode"
_OURS = {"authorization", "host", "x-ms-rehydrate-priority", _UNTIL, _MODE}
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
    priority: str = ""
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


_IMMUTABLE, _ARCHIVED, _ABSENT = (
    refused(409, "BlobImmutableDueToPolicy"),
    refused(409, "BlobArchived"),
    refused(404, "BlobNotFound"),
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

    def answer(self, asked: Request) -> Answer:
        with self._lock:
            if not asked.is_of_a_blob:
                return self._of_container(asked)
            if "versionid" not in asked.query:
                return self._of_current(asked)
            return self._of_version(asked, asked.query["versionid"])

    def _of_container(self, asked: Request) -> Answer:
        if asked.comp == "list" and asked.query.get("restype") == "container":
            return self._listing(asked)
        told = self._forward(asked)
        immutable = str(self._manners.immutable).lower()
        return told.having(**{"x-ms-immutable-storage-with-versioning-enabled": immutable}) if not asked.comp else told

    def _of_current(self, asked: Request) -> Answer:
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

    def _of_version(self, asked: Request, version: str) -> Answer:
        current = self._current.get(asked.path)
        if current is not None and current.id == version:
            if asked.method == "DELETE" and not asked.comp:
                return refused(403, "OperationNotAllowedOnRootBlob")
            return self._of_current(replace(asked, query=without(asked.query, "versionid")))
        held = next((old for old in self._old.get(asked.path, []) if old.id == version), None)
        if held is None:
            return _ABSENT
        if asked.comp == "immutabilityPolicies":
            return self._police(asked, held)
        if asked.method == "DELETE":
            if self._is_protected(held):
                return _IMMUTABLE
            self._old[asked.path].remove(held)
            return Answer(202)
        return _ARCHIVED if held.archived and asked.method == "GET" else _read(asked, held)

    def _write(self, asked: Request, held: _Version | None) -> Answer:
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
        made = _Version(
            self._new_id(),
            self._uploaded(asked),
            archived or arriving,
            arriving,
            self._hurried(asked) if arriving else "",
        )
        self._current[asked.path] = made
        return told.having(x_ms_version_id=made.id)

    def _hurried(self, asked: Request) -> str:
        self.priorities.append(asked.headers.get("x-ms-rehydrate-priority", "Standard"))
        return self.priorities[-1]

    def _uploaded(self, asked: Request) -> _Policy | None:
        if _UNTIL not in asked.headers or self._manners.ignores_policies or not self._manners.immutable:
            return None
        policy = _policy_of(asked)
        return policy if self._manners.locks_uploads else replace(policy, mode="Unlocked")

    def _source(self, asked: Request) -> _Version | None:
        """What is copied: an old version has its bytes with it."""
        url = urlsplit(asked.headers.get("x-ms-copy-source", ""))
        current, version = self._current.get(unquote(url.path)), parse_qs(url.query).get("versionid", [""])[0]
        if not version or (current is not None and current.id == version):
            return current
        return next(old for old in self._old[unquote(url.path)] if old.id == version)

    def _copy(self, asked: Request, source: _Version) -> Answer:
        metadata = {name: value for name, value in source.headers.items() if name.startswith("x-ms-meta-")}
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": asked.headers["x-ms-version"], **metadata}
        told = self._forward(replace(asked, headers=headers, body=source.data))
        return replace(told, status=202).having(x_ms_copy_id="copy", x_ms_copy_status="success")

    def _undelete(self, asked: Request) -> Answer:
        gone = self._deleted.pop(asked.path, None)
        if gone is None:
            return Answer(200) if asked.path in self._current else _ABSENT
        self._copy(replace(asked, query={}), gone)
        self._current[asked.path] = replace(gone, data=b"", headers={})
        return Answer(200)

    def _police(self, asked: Request, held: _Version) -> Answer:
        locked = held.policy is not None and held.policy.mode == "Locked"
        if asked.method == "DELETE":
            if locked:
                return refused(409, "ImmutabilityPolicyDeleteOnLockedPolicy")
            held.policy = None
            return Answer(200)
        wanted = _policy_of(asked)
        if wanted.until <= self.now():
            return refused(400, "InvalidHeaderValue")
        if self._manners.ignores_policies:
            return Answer(200, wanted.headers())
        if held.policy is None and wanted.mode == "Locked":  # feared, not documented
            return refused(400, "InvalidHeaderValue")
        if locked and held.policy and (wanted.mode != "Locked" or wanted.until < held.policy.until):
            return _IMMUTABLE
        held.policy = wanted
        return Answer(200, wanted.headers())

    def _move(self, asked: Request, held: _Version) -> Answer:
        if asked.headers["x-ms-access-tier"] == "Archive":
            held.archived = True
            return Answer(200)
        if held.archived:
            held.arriving, held.priority = True, self._hurried(asked)
            return Answer(202)
        return self._forward(asked)

    def _delete(self, asked: Request, held: _Version) -> Answer:
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
        told = self._forward(Request("GET", path, {}, {"x-ms-version": "2021-12-02"}))
        kept = {name: value for name, value in told.headers.items() if name in _KEPT or name.startswith("x-ms-meta-")}
        return replace(held, data=told.body, headers=kept)

    def _told_of(self, asked: Request, held: _Version) -> Answer:
        told = self._forward(asked)
        if not told.is_well:
            return told
        more = _marks(held) | {"x-ms-is-current-version": "true"}
        if held.archived:
            told.headers.pop("x-ms-access-tier-inferred", None)
        if held.arriving:
            more |= {"x-ms-archive-status": "rehydrate-pending-to-hot", "x-ms-copy-status": "pending"}
            more["x-ms-rehydrate-priority"] = held.priority
        return told.having(**(more if self._manners.immutable or held.archived else {}))

    def _listing(self, asked: Request) -> Answer:
        include = asked.query.get("include", "").split(",")
        plain = ",".join(name for name in include if name not in ("versions", "snapshots"))
        query = without(asked.query, "include") | ({"include": plain} if plain else {})
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

    def _forward(self, asked: Request) -> Answer:
        headers = {name: value for name, value in asked.headers.items() if name not in _OURS}
        if headers.get("x-ms-access-tier") == "Archive":
            del headers["x-ms-access-tier"]
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        path = "/".join(map(quoted, asked.path.split("/")))
        connection.request(asked.method, f"{path}?{urlencode(asked.query)}&{_token()}", asked.body, headers)
        told = connection.getresponse()
        answer = Answer(told.status, {k.lower(): v for k, v in told.getheaders()}, told.read())
        connection.close()
        return answer

    def _new_id(self) -> str:
        self._made += 1
        return f"{datetime.now(UTC):%Y-%m-%dT%H:%M}:00.{self._made:07}Z"


@contextmanager
def azure_front(port: int, manners: Manners | None = None) -> Iterator[AzureFront]:
    """In front of Azurite on `port`, while the block runs."""
    front = AzureFront(port, manners or Manners())
    with serving(front.answer, front.now) as endpoint:
        front.endpoint = endpoint
        yield front


def _policy_of(asked: Request) -> _Policy:
    return _Policy(parsedate_to_datetime(asked.headers[_UNTIL]), asked.headers.get(_MODE, "Unlocked").capitalize())


def _marks(held: _Version) -> dict[str, str]:
    marks = {"x-ms-version-id": held.id} | (held.policy.headers() if held.policy else {})
    return marks | ({"x-ms-access-tier": "Archive"} if held.archived else {})


def _read(asked: Request, held: _Version) -> Answer:
    headers, size = held.headers | _marks(held), len(held.data)
    if asked.method == "HEAD":
        return Answer(200, headers | {"content-length": str(size)})
    wanted = asked.headers.get("x-ms-range") or asked.headers.get("range") or f"bytes=0-{size - 1}"
    start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
    body = held.data[start : end + 1]
    return Answer(206, headers | {"content-range": f"bytes {start}-{start + len(body) - 1}/{size}"}, body)


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


def without(query: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in query.items() if key != name}


def quoted(part: str) -> str:
    return urlencode({"": part})[1:]


@cache
def _token() -> str:
    return generate_account_sas(
        "devstoreaccount1",
        AZURITE_KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions.from_string("rwdlacuptfxi"),
        expiry=datetime.now(UTC) + timedelta(days=1),
    )
