"""What a bucket has already of the rows that are to be restored to it, so that it is not put again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import AccessDenied, ObjectChanged, ObjectNotFound, StoreError, StoreUnavailable, UsageError
from dr_pipelines.files.arrays import array, flat, text
from dr_pipelines.files.restore_target import Row, rows_in
from dr_pipelines.files.table import FILE
from dr_pipelines.storage.bucket import Bucket, ObjectHeaders

_FEW = 1000
"""So many are each looked at; of more it is listed first what there is."""
_SOME = 10_000
_REQUESTS = 16
_MD5 = re.compile("[0-9a-f]{32}")
Headers = Callable[[Row], ObjectHeaders]


def standing(
    bucket: Bucket, prefix: str, rows: pa.Table, headers: Headers, *, few: int = _FEW
) -> tuple[set[bytes], set[bytes]]:
    """Of the files in `rows`, relative to `prefix`: the paths of those that are there with their content and `headers`,
    and of those that are there otherwise. Raises what the bucket raises."""
    files = rows.filter(pc.and_(pc.equal(rows["type"], text(FILE)), pc.is_valid(rows["sha256"])))
    if len(files) > few:
        with suppress(AccessDenied):  # who may not list may look
            there = pa.chunked_array([*_listed(bucket, prefix, flat(files["path"]))], pa.binary())
            files = files.filter(pc.is_in(files["path"], value_set=flat(there)))
    etags: Iterator[str | None] = iter(files["etag"].to_pylist())
    wanted = zip(rows_in(files), etags, strict=True)
    same: set[bytes] = set()
    other: set[bytes] = set()
    with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="standing") as pool:
        while some := [*islice(wanted, _SOME)]:
            found = pool.map(lambda one: _is_same(bucket, prefix, one[0], one[1], headers), some)
            for (row, _), alike in zip(some, found, strict=True):
                if alike is not None:
                    (same if alike else other).add(row.path)
    return same, other


def _listed(bucket: Bucket, prefix: str, paths: pa.Array) -> Iterator[pa.Array]:
    """Those of `paths` that there are."""
    keys = (one.key.removeprefix(prefix).encode() for one in bucket.list(prefix))
    for some in iter(partial(_next, keys), []):
        found = array(some, pa.binary())
        yield found.filter(pc.is_in(found, value_set=paths))


def _next(keys: Iterator[bytes]) -> list[bytes]:
    return [*islice(keys, _SOME)]


def _is_same(bucket: Bucket, prefix: str, row: Row, etag: str | None, headers: Headers) -> bool | None:
    """None where nothing is, or that cannot be told."""
    try:
        found, kept = bucket.stat(prefix + row.path.decode())
        if found.size != row.size or kept != headers(row):
            return False
        if etag and found.etag == etag:
            return True
        if etag and _MD5.fullmatch(etag) and _MD5.fullmatch(found.etag):
            return False
        digest = hashlib.sha256()
        for piece in bucket.read(found)[1]:
            digest.update(piece)
        return digest.digest() == row.sha256
    except (ObjectNotFound, UnicodeDecodeError, UsageError):
        return None
    except ObjectChanged:
        return False
    except StoreUnavailable:
        raise
    except StoreError:  # no key that the service can hold, or an object in an archive: the writer will tell
        return None
