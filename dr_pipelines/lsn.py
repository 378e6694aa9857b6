"""Positions in PostgreSQL's write-ahead log as frozen, ordered types.

Source: PostgreSQL manual, "Write Ahead Log" and `XLogFileName` in `xlog_internal.h`. A segment's size is a
property of the server (`--wal-segsize`) and always an argument, never a global.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

DEFAULT_SEGMENT_SIZE = 16 * 1024 * 1024
_LSN = re.compile(r"\A([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
_SEGMENT = re.compile(r"\A([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\Z")
_HISTORY = re.compile(r"\A([0-9A-F]{8})\.history\Z")


@total_ordering
@dataclass(frozen=True)
class Lsn:
    """A byte position in the WAL; prints as PostgreSQL prints it (`0/3000148`)."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << 64:
            raise ValueError(f"not an LSN: {self.value}")

    @classmethod
    def parse(cls, text: str) -> Lsn:
        match = _LSN.match(text)
        if match is None:
            raise ValueError(f"not an LSN: {text!r} (expected the form 0/3000148)")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.value >> 32:X}/{self.value & 0xFFFFFFFF:X}"

    def __lt__(self, other: Lsn) -> bool:
        return self.value < other.value

    def __add__(self, count: int) -> Lsn:
        return Lsn(self.value + count)

    def __sub__(self, other: Lsn) -> int:
        return self.value - other.value


@total_ordering
@dataclass(frozen=True)
class Timeline:
    """A timeline id; prints as eight hex digits."""

    id: int

    def __post_init__(self) -> None:
        if not 1 <= self.id < 1 << 32:
            raise ValueError(f"not a timeline: {self.id}")

    @classmethod
    def of_history_file(cls, name: str) -> Timeline:
        match = _HISTORY.match(name)
        if match is None:
            raise ValueError(f"not a timeline history file: {name!r}")
        return cls(int(match[1], 16))

    @property
    def history_file(self) -> str:
        return f"{self.id:08X}.history"

    def __str__(self) -> str:
        return f"{self.id:08X}"

    def __lt__(self, other: Timeline) -> bool:
        return self.id < other.id


@total_ordering
@dataclass(frozen=True)
class WalSegment:
    """One WAL file: `number` counts segments of `size` bytes from the start of the log."""

    timeline: Timeline
    number: int
    size: int = DEFAULT_SEGMENT_SIZE

    @classmethod
    def containing(cls, lsn: Lsn, timeline: Timeline, size: int) -> WalSegment:
        """The segment that holds the byte at `lsn`."""
        return cls(timeline, lsn.value // size, size)

    @classmethod
    def parse(cls, name: str, size: int) -> WalSegment:
        match = _SEGMENT.match(name)
        if match is None:
            raise ValueError(f"not a WAL segment name: {name!r}")
        timeline, log, seg = (int(part, 16) for part in match.groups())
        per_log = (1 << 32) // size
        if seg >= per_log:
            raise ValueError(f"not a WAL segment of {size} bytes: {name!r}")
        return cls(Timeline(timeline), log * per_log + seg, size)

    @property
    def log(self) -> int:
        """The middle eight hex digits of the name, as a number."""
        return self.number // ((1 << 32) // self.size)

    @property
    def name(self) -> str:
        return f"{self.timeline}{self.log:08X}{self.number % ((1 << 32) // self.size):08X}"

    @property
    def start(self) -> Lsn:
        return Lsn(self.number * self.size)

    @property
    def end(self) -> Lsn:
        """The first byte after the segment."""
        return Lsn((self.number + 1) * self.size)

    def next(self) -> WalSegment:
        return WalSegment(self.timeline, self.number + 1, self.size)

    def __str__(self) -> str:
        return self.name

    def __lt__(self, other: WalSegment) -> bool:
        return (self.timeline, self.number) < (other.timeline, other.number)


def is_segment_name(name: str) -> bool:
    return _SEGMENT.match(name) is not None


def is_history_name(name: str) -> bool:
    return _HISTORY.match(name) is not None
