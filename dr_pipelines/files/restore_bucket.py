"""Files restored to a bucket: each put is one step, of content that is proven before its last byte is sent, with its
headers and the user's metadata."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from dr_pipelines.clock import Clock
from dr_pipelines.errors import AccessDenied, DrError, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from dr_pipelines.files.bucket_standing import standing
from dr_pipelines.files.restore import FilesReport, without
from dr_pipelines.files.restore_packs import Unpacking
from dr_pipelines.files.restore_plan import Failure, plan_restore
from dr_pipelines.files.restore_recall import ASKING, Recall, Recalling
from dr_pipelines.files.restore_target import NotRestored, Pieces, Row, rows_in
from dr_pipelines.files.select import selected
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Known, Tiers
from dr_pipelines.progress import Progress
from dr_pipelines.repository.snapshot_manifest import FileArchive
from dr_pipelines.storage.bucket import Bucket, ObjectHeaders


class BucketTarget:
    """A `Target` below `prefix`. What is there stays, unless it may be replaced: then its path is in `kept`.
    `left_out`: names of headers that the service cannot hold."""

    writers = 8

    def __init__(self, bucket: Bucket, prefix: str, *, overwrite: bool) -> None:
        self._bucket, self._if_absent = bucket, not overwrite
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._lock = threading.Lock()
        self.name = f"{bucket.name}/{self._prefix}".rstrip("/")
        self.kept: set[bytes] = set()
        self.left_out: set[str] = set()
        self._in_a_row = 0

    def put(self, row: Row, content: memoryview) -> None:
        self._put(row, iter((bytes(content),)))

    def put_large(self, rows: Sequence[Row], pieces: Pieces) -> None:
        for row in rows:
            self._put(row, _proven(pieces()))

    def standing(self, rows: pa.Table) -> tuple[set[bytes], set[bytes]]:
        """Paths of `rows` whose objects are there as the rows say, and those that are there as they are not."""
        return standing(self._bucket, self._prefix, rows, self._headers)

    def _put(self, row: Row, pieces: Iterator[bytes]) -> None:
        try:
            key = self._prefix + row.path.decode()
        except UnicodeDecodeError:
            raise NotRestored("a bucket's keys are Unicode, and the path is not") from None
        try:
            self._store(key, row, pieces)
        except ObjectExists:
            with self._lock:
                self.kept.add(row.path)
        except AccessDenied:
            raise
        except StoreError as error:
            if isinstance(error, StoreUnavailable) and not self._is_of(key):
                raise
            raise NotRestored(f"cannot be put: {error.message}") from error
        self._in_a_row = 0

    def _is_of(self, key: str) -> bool:
        """Whether it is this key's own trouble: the bucket answers, and took others. Services on a file system fail at
        `a/b` where there is an `a`, each time anew."""
        with self._lock:
            self._in_a_row += 1
        try:
            self._bucket.stat(key)
        except ObjectNotFound:
            pass
        except DrError:
            return False
        return self._in_a_row <= self.writers

    def _store(self, key: str, row: Row, pieces: Iterable[bytes]) -> None:
        self._bucket.put(key, pieces, self._headers(row), size=row.size, if_absent=self._if_absent)

    def _headers(self, row: Row) -> ObjectHeaders:
        headers = ObjectHeaders(**(row.headers or {}), metadata=row.metadata or {})
        cannot = self._bucket.cannot_hold(headers)
        if not cannot:
            return headers
        with self._lock:
            self.left_out.update(cannot)
        texts = {name: value for name, value in (row.headers or {}).items() if name not in cannot}
        metadata = {name: value for name, value in headers.metadata.items() if f"metadata.{name}" not in cannot}
        return ObjectHeaders(**texts, metadata=metadata)


def _proven(pieces: Iterator[memoryview]) -> Iterator[bytes]:
    """The last piece only when all were right: so what is not never becomes an object."""
    held = b""
    for piece in pieces:
        if held:
            yield held
        held = bytes(piece)
    yield held


def restore_to_bucket(
    tiers: Tiers,
    snapshot: Known,
    bucket: Bucket,
    prefix: str,
    *,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    recalling: Recalling = ASKING,
    clock: Clock,
    progress: Progress,
) -> FilesReport:
    """What is there already as it should be is not put again. Raises as `restore.restore_to_directory`, and what the
    bucket raises when nothing more can be put; what was put until then stays."""
    progress.phase("look")
    rows = selected(tiers.table(snapshot.manifest), paths)
    target = BucketTarget(bucket, prefix, overwrite=overwrite)
    same, other = target.standing(rows)
    if not overwrite:
        target.kept |= other
    return restore_into(
        tiers,
        without(rows, same | target.kept),
        snapshot.manifest.archives,
        target,
        same=len(same),
        snapshot=snapshot.manifest.label,
        recalling=recalling,
        clock=clock,
        progress=progress,
    )


def restore_into(
    tiers: Tiers,
    rows: pa.Table,
    archives: Iterable[FileArchive],
    target: BucketTarget,
    *,
    snapshot: str,
    same: int = 0,
    recalling: Recalling = ASKING,
    clock: Clock,
    progress: Progress,
) -> FilesReport:
    """Rows that were chosen, of one snapshot or several (`snapshot` says which), whose contents lie in `archives`."""
    began = clock.monotonic()
    plan = plan_restore(rows, archives, into_bucket=True)
    progress.phase("restore", plan.bytes)
    unpacking = Unpacking(tiers, target, plan.contents, progress)
    Recall(tiers, plan, recalling).run(unpacking.run, clock=clock, progress=progress)
    empty = rows_in(plan.empty_files)
    failures = [*plan.failures, *unpacking.failures, *_put_empty(target, empty)]
    lost = {failure.path: failure.reason for failure in failures}
    wanted = [*plan.contents["path"].to_pylist(), *(row.path for row in empty)]
    note = f"{target.name} cannot hold {', '.join(sorted(target.left_out))}: left out" if target.left_out else None
    return FilesReport(
        file_set=tiers.file_set,
        snapshot=snapshot,
        target=target.name,
        files=sum(path not in lost and path not in target.kept for path in wanted),
        directories=0,
        links=0,
        bytes=plan.bytes_without({*lost, *target.kept}),
        packs=unpacking.packs,
        fetched_bytes=unpacking.fetched,
        seconds=clock.monotonic() - began,
        same=same,
        kept=tuple(shown(path) for path in sorted(target.kept)),
        failed={shown(path): lost[path] for path in sorted(lost)},
        notes=(note,) if note else (),
    )


def _put_empty(target: BucketTarget, rows: Sequence[Row]) -> Iterator[Failure]:
    for row in rows:
        try:
            target.put(row, memoryview(b""))
        except NotRestored as error:
            yield Failure(row.path, error.message)
