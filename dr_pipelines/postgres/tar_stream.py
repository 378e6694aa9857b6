"""A tar given in pieces of any size: what each piece holds.

Used where a backup is taken (index, renaming) and where it is restored. Only what PostgreSQL's servers write is
understood: ustar headers of files, directories and links. Source: PostgreSQL's `src/port/tar.c`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dr_pipelines.errors import IntegrityError

BLOCK = 512
END = bytes(2 * BLOCK)
_NAME, _PREFIX = slice(0, 100), slice(345, 500)
_SIZE, _CHECKSUM, _MODE, _LINK = slice(124, 136), slice(148, 156), slice(100, 108), slice(157, 257)


@dataclass(frozen=True)
class Member:
    """One member. `offset` is of its header in the tar, `size` of its content in bytes; `kind` is `file`,
    `directory` or `link`. A slash that ends the name of a directory or link in the tar is left out."""

    name: str
    kind: str
    size: int
    mode: int
    offset: int
    link: str = ""


@dataclass(frozen=True)
class Header:
    """A member begins; `raw` is its header of 512 bytes."""

    member: Member
    raw: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a member, from `offset` within it. The view is valid until the next piece is fed."""

    member: Member
    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Padding:
    """Bytes that fill a member's last block."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class Zeros:
    """A block of zeros where a header may be: the end of a tar, for those who stop there. The walk goes on."""


Event = Header | Content | Padding | Zeros

_KINDS = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}


class TarWalk:
    """Feed it the tar in order."""

    def __init__(self) -> None:
        self._position = 0
        self._head = b""
        self._member: Member | None = None
        self._done = 0
        self._padding = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """What `data` holds, in order. Raises `IntegrityError` when this is no tar."""
        view = memoryview(data).cast("B")
        while len(view):
            if self._member is not None:
                count = min(len(view), self._member.size - self._done)
                yield Content(self._member, self._done, view[:count])
                self._done += count
                if self._done == self._member.size:
                    self._member = None
            elif self._padding:
                count = min(len(view), self._padding)
                yield Padding(view[:count])
                self._padding -= count
            else:
                count = min(len(view), BLOCK - len(self._head))
                self._head += bytes(view[:count])
                if len(self._head) == BLOCK:
                    yield self._begin()
            self._position += count
            view = view[count:]

    def skip(self, count: int) -> bool:
        """Pass over `count` bytes unseen, when they all lie within the current member and do not end it."""
        if self._member is None or self._done + count >= self._member.size:
            return False
        self._done += count
        self._position += count
        return True

    def finish(self) -> None:
        """Raises `IntegrityError` when the tar ends within a member."""
        if self._member is not None or self._padding or self._head:
            raise IntegrityError("the tar of a backup is cut short")

    def _begin(self) -> Header | Zeros:
        raw, self._head = self._head, b""
        if not any(raw):
            return Zeros()
        member = parse_header(raw, self._start())
        if member.size:
            self._member, self._done = member, 0
            self._padding = -member.size % BLOCK
        return Header(member, raw)

    def _start(self) -> int:
        """Where the header that was just completed begins; it always lies on a block."""
        return self._position // BLOCK * BLOCK


def parse_header(raw: bytes, offset: int) -> Member:
    """Raises `IntegrityError` when the checksum or the kind is not right."""
    kind = _KINDS.get(raw[156:157])
    try:
        size, mode = _number(raw[_SIZE]), int(_text(raw[_MODE]) or "0", 8)
        right = int(_text(raw[_CHECKSUM]) or "0", 8) == checksum(raw) and size >= 0
    except ValueError:
        right = False
    if kind is None or not right:
        raise IntegrityError(f"the tar of a backup has no valid header at offset {offset}")
    prefix = _text(raw[_PREFIX]) if raw[257:262] == b"ustar" else ""
    name = f"{prefix}/{_text(raw[_NAME])}" if prefix else _text(raw[_NAME])
    return Member(name.rstrip("/"), kind, size if kind == "file" else 0, mode, offset, _text(raw[_LINK]))


def renamed(raw: bytes, name: str) -> bytes:
    """A header under another name. Raises `ValueError` when no header can hold it."""
    encoded = name.encode("utf-8", "surrogateescape")
    prefix = b""
    if len(encoded) > 100:
        cut = encoded.rfind(b"/", 0, min(155, len(encoded) - 1))  # a slash that ends the name is none to cut at
        prefix, encoded = encoded[:cut], encoded[cut + 1 :]
        if cut <= 0 or len(encoded) > 100:
            raise ValueError(f"the name is too long for a tar: {name}")
    head = bytearray(raw)
    head[_NAME] = encoded.ljust(100, b"\0")
    head[_PREFIX] = prefix.ljust(155, b"\0")
    head[_CHECKSUM] = b"%06o\0 " % checksum(head)
    return bytes(head)


def checksum(raw: bytes | bytearray) -> int:
    """The sum of all bytes, with the checksum's own field taken as spaces."""
    return sum(raw) - sum(raw[_CHECKSUM]) + 8 * 0x20


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape").strip(" ")


def _number(field: bytes) -> int:
    """Octal, or binary in base 256 for what octal cannot hold."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(_text(field) or "0", 8)
