"""A bucket whose objects are listed by a database, at one moment: Supabase Storage's. Pages of a listing are of many
moments, and an object that is renamed meanwhile may be on none of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dr_pipelines.files.arrays import array, no_rows
from dr_pipelines.files.source import FileSource, OpenFile, Scan, Wanted
from dr_pipelines.files.table import FILE, SOURCE

Object = tuple[bytes, int | None, str | None, str | None, int | None]
"""Path, size in bytes, ETag without quotes, version, time of the last change in microseconds since 1970."""
ListObjects = Callable[[], Iterable[Sequence[Object]]]


class ListedBucket:
    """`bucket` gives the contents; `objects` lists them, some at a time."""

    def __init__(self, bucket: FileSource, objects: ListObjects) -> None:
        self._bucket, self._objects = bucket, objects
        self.description = f"{bucket.description}, listed by its rows"
        self.readers, self.tree = bucket.readers, None

    def scan(self) -> Scan:
        """Raises what the database raises."""
        return Scan(pa.concat_tables([no_rows(SOURCE), *map(_rows, self._objects())]))

    def look(self, paths: Collection[bytes]) -> Scan:
        wanted = set(paths)
        return Scan(
            pa.concat_tables(
                [
                    no_rows(SOURCE),
                    *(_rows([one for one in some if one[0] in wanted]) for some in self._objects()),
                ]
            ).combine_chunks()
        )

    def open(self, wanted: Wanted) -> OpenFile:
        """The version of a row is no version of the S3 protocol: what is read is held against the ETag."""
        return self._bucket.open(replace(wanted, version=None))


def _rows(objects: Sequence[Object]) -> pa.Table:
    told: dict[str, Sequence[Any]] = {
        "path": [one[0] for one in objects],
        "type": [FILE] * len(objects),
        "size": [one[1] or 0 for one in objects],
        "etag": [one[2] for one in objects],
        "version": [one[3] for one in objects],
        "mtime_ns": [one[4] * 1000 if one[4] is not None else None for one in objects],
    }
    # Of a million objects the columns that a bucket has not would take as much memory as the others, if not shared.
    nothing = {kind: pa.nulls(len(objects), kind) for kind in {column.type for column in SOURCE}}
    columns = [array(told[one.name], one.type) if one.name in told else nothing[one.type] for one in SOURCE]
    return pa.table(columns, schema=SOURCE)
