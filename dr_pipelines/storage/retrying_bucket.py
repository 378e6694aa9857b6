"""A bucket over any service: the prefix, trying again, streams in bounded memory, and proof of what was read or put."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dr_pipelines.errors import (
    DrError,
    IntegrityError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ObjectOffline,
    StoreError,
    UsageError,
)
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.bucket import BucketObject, ObjectHeaders
from dr_pipelines.storage.bucket_service import BucketService, Sent

PART = 32 * 1024 * 1024
"""What is larger is put in parts of this size, or larger ones where there would be too many."""
_MD5 = re.compile("[0-9a-f]{32}")


class RetryingBucket:
    """A `Bucket`. `part_size` in bytes; a put holds one part, and the SDKs another copy of it."""

    def __init__(self, service: BucketService, attempts: Attempts, *, prefix: str = "", part_size: int = PART) -> None:
        self.name = service.name
        self._service, self._attempts, self._part_size = service, attempts, part_size
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def list(self, prefix: str = "") -> Iterator[BucketObject]:
        token: str | None = None
        while True:
            page = self._attempts(partial(self._service.page, self._prefix + prefix, token))
            for found in page.objects:
                if found.key != self._prefix:
                    yield self._outside(found)
            token = page.following
            if token is None:
                return

    def read(self, found: BucketObject) -> tuple[ObjectHeaders, Iterator[bytes]]:
        there = replace(found, key=self._inside(found.key))

        def reopen(seen: int) -> Iterator[bytes]:
            return self._service.open(there, seen)[1] if seen < there.size else iter(())

        try:
            headers, first = self._attempts(lambda: self._service.open(there, 0))
        except ObjectOffline as error:
            hint = "move it out of its archive class: what files are backed up from must be online."
            raise ObjectOffline(error.message, hint=hint) from error
        pieces = self._attempts.resumed(first, reopen)
        return headers, pieces if self._service.reads_one_version else self._of_one_version(there, pieces)

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        found, headers = self._stat(self._inside(key))
        return self._outside(found), headers

    def put(
        self,
        key: str,
        pieces: Iterable[bytes],
        headers: ObjectHeaders,
        *,
        size: int,
        if_absent: bool = True,
        replacing: BucketObject | None = None,
    ) -> tuple[BucketObject, ObjectHeaders]:
        inside, whole = self._inside(key), size <= self._part_size
        self._refuse_headers(key, headers)
        only = _Only(if_absent, replacing, self._service.conditional)
        arriving = _Arriving(pieces, size, f"{self.name}: {key}")
        if whole:
            data = b"".join(arriving)
            sent = self._written(inside, lambda: self._service.put(inside, data, headers, **only.asked), arriving, only)
        else:
            sent = self._in_parts(inside, arriving, headers, only)
        there, kept = self._confirmed(inside, sent, arriving)
        return self._outside(there), kept

    def delete(self, found: BucketObject) -> None:
        there = replace(found, key=self._inside(found.key))
        try:
            if there.version is None and not there.is_still(self._stat(there.key)[0]):
                raise self._changed(there.key)
        except ObjectNotFound:
            return
        self._attempts(lambda: self._service.delete(there))

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        return self._service.cannot_hold(headers)

    def _stat(self, inside: str) -> tuple[BucketObject, ObjectHeaders]:
        return self._attempts(lambda: self._service.stat(inside))

    def _of_one_version(self, there: BucketObject, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Where the service may have gone on with another version: the ETag is the MD5 of what came, or at least the
        object is the same after it was read as before."""
        digest = hashlib.md5(usedforsecurity=False) if _MD5.fullmatch(there.etag) else None
        for piece in pieces:
            if digest is not None:
                digest.update(piece)
            yield piece
        if digest is not None and digest.hexdigest() == there.etag:
            return
        if not there.is_still(self._stat(there.key)[0]):
            raise self._changed(there.key)

    def _in_parts(self, inside: str, arriving: _Arriving, headers: ObjectHeaders, only: _Only) -> Sent:
        service, size = self._service, max(self._part_size, -(-arriving.size // self._service.most_parts))
        self._look(inside, replace(only, kept=False))  # before much is sent for nothing
        upload = self._attempts(lambda: service.begin(inside, headers))
        try:
            parts: list[str] = []
            for number, data in enumerate(_cut(arriving, size), 1):
                parts.append(self._attempts(partial(service.send, inside, upload, number, data)))
            # Many a service keeps conditions of a put, and not of this.
            self._look(inside, replace(only, kept=False))
            return self._written(
                inside, lambda: service.finish(inside, upload, parts, headers, **only.asked), arriving, only
            )
        except BaseException:
            with suppress(DrError):  # the first trouble is the one to tell
                service.abort(inside, upload)
            raise

    def _written(self, inside: str, write: Callable[[], Sent], arriving: _Arriving, only: _Only) -> Sent:
        """An answer that was lost on its way may have been that all went well: then the next attempt meets what the
        first one did."""
        failed = False
        self._look(inside, only)

        def attempt() -> Sent:
            nonlocal failed
            try:
                return write()
            except (ObjectExists, ObjectNotFound) as error:
                if failed and self._holds(inside, arriving):
                    return Sent()
                if only.replacing is not None:
                    raise self._changed(inside) from error
                raise
            except DrError:
                failed = True
                raise

        return self._attempts(attempt)

    def _confirmed(self, inside: str, sent: Sent, arriving: _Arriving) -> tuple[BucketObject, ObjectHeaders]:
        there, kept = self._stat(inside)
        ours = not sent.etag or there.etag == sent.etag
        if ours and sent.proven and there.size == arriving.size:
            return there, kept
        if self._sha256(there) == arriving.sha256:
            return there, kept
        if not ours:
            raise ObjectExists(f"{self.name}: {inside} holds what another writer put there at the same time")
        self._attempts(lambda: self._service.delete(there))
        raise IntegrityError(
            f"{self.name} held under {inside} something else than was sent; it was removed",
            hint="put it again; if that fails too, the service damages what it is given.",
        )

    def _holds(self, inside: str, arriving: _Arriving) -> bool:
        with suppress(ObjectNotFound):
            there = self._stat(inside)[0]
            return there.size == arriving.size and self._sha256(there) == arriving.sha256
        return False

    def _sha256(self, there: BucketObject) -> str:
        digest = hashlib.sha256()
        for piece in self.read(self._outside(there))[1]:
            digest.update(piece)
        return digest.hexdigest()

    def _look(self, inside: str, only: _Only) -> None:
        """What the service does not keep, as well as that can be done."""
        if only.kept or not (only.if_absent or only.replacing):
            return
        try:
            now = self._stat(inside)[0]
        except ObjectNotFound as error:
            if only.replacing is not None:
                raise self._changed(inside) from error
            return
        if only.replacing is None:
            raise ObjectExists(f"{self.name}: {inside} is there already")
        if not only.replacing.is_still(now):
            raise self._changed(inside)

    def _refuse_headers(self, key: str, headers: ObjectHeaders) -> None:
        if lost := self.cannot_hold(headers):
            raise StoreError(
                f"{self.name} cannot hold {', '.join(lost)} of {key}", hint="restore it without, or to another service."
            )

    def _changed(self, inside: str) -> ObjectChanged:
        return ObjectChanged(f"{self.name}: {inside} was replaced meanwhile", hint="look at it again.")

    def _inside(self, key: str) -> str:
        if not key or "\0" in key:
            raise UsageError(f"not a key of a bucket: {key!r}")
        return self._prefix + key

    def _outside(self, found: BucketObject) -> BucketObject:
        return replace(found, key=found.key.removeprefix(self._prefix)) if self._prefix else found


@dataclass(frozen=True)
class _Only:
    """When an object may be put. `kept`: by the service itself, which is `asked`."""

    if_absent: bool
    replacing: BucketObject | None
    kept: bool

    @property
    def asked(self) -> dict[str, Any]:
        if not self.kept:
            return {}
        return {"if_absent": self.if_absent} if self.replacing is None else {"if_match": self.replacing.etag}


class _Arriving(Iterator[bytes]):
    """Pieces on their way to a bucket, counted and hashed. Raises `IntegrityError` where they are not `size` bytes."""

    def __init__(self, pieces: Iterable[bytes], size: int, what: str) -> None:
        self.size, self._pieces, self._what = size, iter(pieces), what
        self._seen, self._digest = 0, hashlib.sha256()

    def __next__(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None and self._seen == self.size:
            raise StopIteration
        self._seen += len(piece or b"")
        if piece is None or self._seen > self.size:
            raise IntegrityError(f"{self._what}: {self._seen} bytes came where {self.size} were to be put")
        self._digest.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of `size`, the last one smaller."""
    part = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            taken = view[: size - len(part)]
            part += taken
            view = view[len(taken) :]
            if len(part) == size:
                yield bytes(part)
                part.clear()
    if part:
        yield bytes(part)
