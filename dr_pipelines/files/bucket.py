"""A bucket or container as a source of files: every object is one, its key the path. A listing tells sizes, times and
ETags; headers and metadata come with the content."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from dr_pipelines.errors import ObjectChanged, ObjectNotFound, StoreError, StoreUnavailable
from dr_pipelines.files.rows import newest_of_each
from dr_pipelines.files.source import FileChanged, FileUnreadable, FileVanished, Scan, Seen, Wanted
from dr_pipelines.files.table import FILE, SOURCE, with_columns
from dr_pipelines.storage.bucket import Bucket, BucketObject, ObjectHeaders
from dr_pipelines.storage.header_text import TEXTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BucketSource:
    """`Bucket.name` is the store's name in the plan."""

    readers, tree = 16, None

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.description = f"bucket {bucket.name}"

    def scan(self) -> Scan:
        """Raises `AccessDenied`, which names the right to give, and what else the bucket raises: a listing that is not
        whole is none."""
        found = [*self._bucket.list()]
        rows = _rows(found)
        # One that was replaced between two pages may be on both.
        return Scan(rows if len({one.key for one in found}) == len(found) else newest_of_each(rows))

    def look(self, paths: Collection[bytes]) -> Scan:
        with ThreadPoolExecutor(self.readers, thread_name_prefix="look") as pool:
            found = dict(zip(paths, pool.map(self._look, paths), strict=True))
        unreadable = {path: one for path, one in found.items() if isinstance(one, str)}
        return Scan(_rows([one for one in found.values() if isinstance(one, BucketObject)]), unreadable)

    def _look(self, path: bytes) -> BucketObject | str | None:
        """None where nothing is; why that cannot be told."""
        try:
            with _told():
                return replace(self._bucket.stat(path.decode())[0], version=None)  # a listing has none
        except FileVanished:
            return None
        except FileUnreadable as error:
            return error.message

    def open(self, wanted: Wanted) -> _OpenObject:
        """As it was listed, or as it is by now."""
        modified = _EPOCH + _MICROSECOND * ((wanted.mtime_ns or 0) // 1000)
        listed = BucketObject(wanted.path.decode(), wanted.size, modified, wanted.etag or "", wanted.version)
        with _told():
            try:
                return _OpenObject(listed, *self._bucket.read(listed))
            except ObjectChanged:
                now, _ = self._bucket.stat(listed.key)
                seen = {"size": now.size, "mtime_ns": _nanoseconds(now.modified), "etag": now.etag}
                return _OpenObject(now, *self._bucket.read(now), Seen(seen))


class _OpenObject:
    """`seen` is what else than its headers is not as it was listed. The version that `stat` knows is not among it: a
    listing has none, and the object would never seem unchanged."""

    def __init__(
        self, found: BucketObject, headers: ObjectHeaders, pieces: Iterator[bytes], seen: Seen | None = None
    ) -> None:
        self.size = found.size
        self._pieces, self._rest = pieces, memoryview(b"")
        texts = [(name, text) for name in TEXTS if (text := getattr(headers, name)) is not None]
        self._seen = {
            **(seen.columns if seen else {}),
            "headers": sorted(texts),
            "metadata": sorted(headers.metadata.items()),
        }

    def read_into(self, target: memoryview) -> int:
        done, size = 0, len(target)
        while done < size and self._has_more():
            count = min(len(self._rest), size - done)
            target[done : done + count], self._rest = self._rest[:count], self._rest[count:]
            done += count
        return done

    def finish(self) -> Seen:
        if self._has_more():  # to the end: only there the stream tells that it was of one version
            raise FileChanged("it became longer while it was read")
        return Seen(self._seen)

    def close(self) -> None:
        self._pieces, self._rest = iter(()), memoryview(b"")

    def _has_more(self) -> bool:
        with _told():
            while not len(self._rest):
                piece = next(self._pieces, None)
                if piece is None:
                    return False
                self._rest = memoryview(piece)
        return True


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with one object must not stop the others; a bucket that does not answer does."""
    try:
        yield
    except ObjectChanged as error:
        raise FileChanged("it was replaced while it was read") from error
    except ObjectNotFound as error:
        raise FileVanished("it was removed while the snapshot was taken") from error
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise FileUnreadable(error.message) from error


def _rows(found: Sequence[BucketObject]) -> pa.Table:
    return with_columns(
        {
            "path": [one.key.encode() for one in found],
            "type": [FILE] * len(found),
            "size": [one.size for one in found],
            "mtime_ns": [_nanoseconds(one.modified) for one in found],
            "etag": [one.etag for one in found],
            "version": [one.version for one in found],
        },
        SOURCE,
    )


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000
