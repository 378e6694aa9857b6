"""The spool of this host's stream as recovery reads it: WAL that was received, and that perhaps no tier has yet.

With synchronous WAL a commit returns when it is here. So where the tiers were down, or the host was, this is what
stands between an acknowledged commit and its loss. What does not belong here: writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.errors import ObjectNotFound, StoreError
from dr_pipelines.lsn import Timeline, WalSegment
from dr_pipelines.postgres.restore_plan import WalSpan
from dr_pipelines.postgres.wal_spool import SpoolFile, SystemSpool
from dr_pipelines.repository.wal_listing import ColdSegment

SPOOL = "this host's spool"


@dataclass(frozen=True)
class SpoolListing:
    """As of a tier; nothing here is cold."""

    spans: Sequence[WalSpan]
    cold: Sequence[ColdSegment] = ()

    def ranges(self) -> Sequence[WalSpan]:
        return self.spans


class SpoolWal:
    """A running stream frees what the tiers hold, so what was listed may be gone: `ObjectNotFound`."""

    def __init__(self, folder: Path, system_id: str) -> None:
        self._folder = folder
        self._spool = SystemSpool(folder / system_id)

    def listing(self) -> SpoolListing:
        """One span a file; they may overlap."""
        spans = [WalSpan(file.segment.timeline, file.segment.start, file.end) for file in self._files()]
        return SpoolListing(spans)

    def timelines(self) -> list[Timeline]:
        with self._told():
            histories = self._spool.histories() if self._spool.directory.is_dir() else []
        return sorted({*histories, *(file.segment.timeline for file in self._files())})

    def history(self, timeline: Timeline) -> bytes | None:
        try:
            with self._told():
                return self._spool.read_history(timeline)
        except ObjectNotFound:
            return None

    def read_segment(self, segment: WalSegment) -> bytes:
        """The whole of a closed segment."""
        for file in self._files():
            if file.whole and file.segment == segment:
                return self._read(file)
        raise ObjectNotFound(f"WAL segment {segment} is not in {self._folder}")

    def head(self, segment: WalSegment) -> SpoolFile | None:
        """The longest head of a segment."""
        heads = [file for file in self._files() if file.segment == segment and not file.whole]
        return max(heads, key=lambda file: file.end, default=None)

    def read_partial(self, head: SpoolFile, /) -> bytes:
        """Padded with zeros to the segment's size."""
        return self._read(head).ljust(head.segment.size, b"\0")

    def _files(self) -> list[SpoolFile]:
        with self._told():
            return self._spool.files() if self._spool.directory.is_dir() else []

    def _read(self, file: SpoolFile) -> bytes:
        with self._told():
            return file.read()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ObjectNotFound(f"what was in {self._folder} is on the tiers now") from None
        except OSError as error:
            raise StoreError(
                f"{self._folder} cannot be read: {error.strerror}",
                hint="WAL that no tier has yet may be there: run `dr restore` as the account of the WAL stream.",
            ) from error
