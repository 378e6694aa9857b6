"""Live objects of a bucket brought back to what their rows say, each in one step and only while the bucket has there
what was found: nothing, or an object of another content, which is kept.

Where the bucket has versions, what is replaced becomes an old one. Else it is copied to a key beside its own first,
which is named after the time when it was written: a repair that was killed finds its copy and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ObjectChanged, ObjectExists, ObjectNotFound
from dr_pipelines.files.aside import name_aside
from dr_pipelines.files.repair import Found, Repair, Repaired, repaired
from dr_pipelines.files.restore_bucket import BucketTarget, restore_into
from dr_pipelines.files.restore_target import NotRestored, Row
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.progress import Progress
from dr_pipelines.storage.bucket import Bucket, BucketObject

_CHANGED = "it was changed since it was looked at"


def repair_bucket(tiers: Tiers, bucket: Bucket, repair: Repair, *, clock: Clock, progress: Progress) -> Repaired:
    """What was put stays, whatever comes after it. Raises what the stores raise when nothing more can be done."""
    target = _Repairing(bucket, {path: repair.found[path] for path in repair.files(repair.wrong)})
    report = restore_into(
        tiers, repair.rows, repair.archives, target,
        snapshot=repair.labels, clock=clock, progress=progress,
    )  # fmt: skip
    failed = dict(report.failed) | dict.fromkeys(report.kept, "somebody put another object there")
    return repaired(repair, target.aside, failed, report.notes)


class _Repairing(BucketTarget):
    """`aside`: where what was there is now, of each path that was replaced."""

    def __init__(self, bucket: Bucket, found: Mapping[bytes, Found]) -> None:
        super().__init__(bucket, "", overwrite=False)
        self._found = found
        self.aside: dict[bytes, str] = {}

    def _store(self, key: str, row: Row, pieces: Iterable[bytes]) -> None:
        if row.path not in self._found:
            super()._store(key, row, pieces)
            return
        try:
            now = _still(self._bucket, key, self._found[row.path])
            with _kept(self._bucket, now) as where:
                self._bucket.put(key, pieces, self._headers(row), size=row.size, replacing=now)
        except (ObjectChanged, ObjectExists):
            raise NotRestored(_CHANGED) from None
        with self._lock:
            self.aside[row.path] = where


def _still(bucket: Bucket, key: str, found: Found) -> BucketObject:
    """Raises `NotRestored` where it is not that any more."""
    try:
        now, _ = bucket.stat(key)
    except ObjectNotFound:
        raise NotRestored(_CHANGED) from None
    if not found.etag or not now.etag:
        raise NotRestored("the bucket gives it no ETag, so nothing tells whether it was changed meanwhile")
    if (now.etag, now.size) != (found.etag, found.size):
        raise NotRestored(_CHANGED)
    return now


@contextmanager
def _kept(bucket: Bucket, now: BucketObject) -> Iterator[str]:
    """Where it can be found once it is replaced."""
    if now.version is not None:
        yield f"its version {now.version}"
        return
    aside = _copied(bucket, now)
    try:
        yield shown(aside.key.encode())
    except BaseException as error:
        if isinstance(error, ObjectChanged) or _is_there(bucket, now):
            with suppress(DrError):  # the first trouble is the one to tell
                bucket.delete(aside)
        raise


def _copied(bucket: Bucket, now: BucketObject) -> BucketObject:
    aside = name_aside(now.key.encode(), now.modified).decode()
    headers, pieces = bucket.read(now)
    try:
        return bucket.put(aside, pieces, headers, size=now.size)[0]
    except ObjectExists:
        there, _ = bucket.stat(aside)
        if there.size == now.size and _sha256(bucket, there) == _sha256(bucket, now):
            return there  # of a repair that did not end
        raise NotRestored(f"{shown(aside.encode())}, to which it would be copied, is another object") from None


def _sha256(bucket: Bucket, found: BucketObject) -> bytes:
    digest = hashlib.sha256()
    for piece in bucket.read(found)[1]:
        digest.update(piece)
    return digest.digest()


def _is_there(bucket: Bucket, now: BucketObject) -> bool:
    try:
        return now.is_still(bucket.stat(now.key)[0])
    except DrError:
        return False
