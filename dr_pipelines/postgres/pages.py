"""Pages of relations, and what of them may differ between two servers that replayed the same WAL. Pure: bytes in.

A server sets hints without WAL, counts commands that replay does not know, and leaves what it likes in unused space.
What is left out is what PostgreSQL leaves out itself when it compares a replayed page with its original
(`wal_consistency_checking`); where replay never compares (sequences between two WAL records, the cache in the metapage
of SP-GiST, the visibility map), it is told here why. Integers lie as the machine has them, for servers run on the host
whose files they are.

Source: `bufpage.h`, `itemid.h`, `htup_details.h`, the `…_mask` functions of each access method (17 and 18).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HEADER_SIZE = 24
_HEADER = struct.Struct("=8xHHHHHHI")  # LSN, checksum, flags, lower, upper, special, size and version, prune xid
_LSN_AND_CHECKSUM = slice(0, 10)
_FLAGS_AT, _LOWER_AT, _PRUNE_XID = 10, 12, slice(20, 24)
_HINTS = 0x0007  # free line pointers, page full, all visible: every flag that a header has
_ALL_VISIBLE = 0x0004
_U16, _I64 = struct.Struct("=H"), struct.Struct("=q")

_NORMAL, _LINE_FLAGS = 1, 0x3 << 15


@dataclass(frozen=True)
class Header:
    """Of a page with the usual layout: line pointers end at `lower`, items begin at `upper`, what belongs to the access
    method at `special`."""

    flags: int
    lower: int
    upper: int
    special: int


def header(page: bytes | bytearray | memoryview) -> Header | None:
    """None when the page is not laid out as usual."""
    _, flags, lower, upper, special, _, _ = _HEADER.unpack_from(page)
    if HEADER_SIZE <= lower <= upper <= special <= len(page):
        return Header(flags, lower, upper, special)
    return None


def is_new(page: bytes | memoryview) -> bool:
    """Nothing was ever logged of it: zeros, with which a server extends a relation in advance, or no more than made
    ready for its first item. To replay, such a page need not be there."""
    if not any(page[:HEADER_SIZE]):
        return not any(page)
    told = header(page)
    return told is not None and not any(page[:8]) and told.lower == HEADER_SIZE and told.upper == told.special


def masked(page: bytes | memoryview, block: int) -> bytes:
    """The page without what may differ. `block` is its number in the relation."""
    out = bytearray(page)
    out[_LSN_AND_CHECKSUM] = bytes(10)
    told = header(out)
    if told is not None:
        _mask_of(out, told, block)(out, told, block)
    return bytes(out)


# --- by access method ---------------------------------------------------------------------------------------


_Mask = Callable[[bytearray, Header, int], None]


def _mask_of(page: bytearray, told: Header, block: int) -> _Mask:
    """Access methods put their mark at the page's end, or are known by what they put there."""
    size = len(page) - told.special
    mark = _U16.unpack_from(page, len(page) - 2)[0]
    if size == 0:
        return _heap
    if size == 16:
        return {0xFF80: _hash, 0xFF81: _gist}.get(mark, _btree if mark < 0xFF80 else _other)
    if size == 8:
        if is_sequence(page, block):
            return _other
        marked = {0xFF82: _spgist, 0xF091: _brin_meta, 0xF092: _brin_map, 0xF093: _brin}
        return marked.get(mark, _gin if mark < 0xF091 else _other)
    return _other


def _other(page: bytearray, told: Header, block: int) -> None:
    """Of generic WAL, as extensions write it, and of sequences: no hints."""
    _clear_unused(page, told)


def _heap(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    _clear_unused(page, told)
    for number, (offset, flags, length) in enumerate(_lines(page, told), start=1):
        if flags == _NORMAL and offset + 23 <= len(page):
            _clear_tuple_hints(page, offset, block, number)
        if length % 8:
            page[offset + length : offset + length + -length % 8] = bytes(-length % 8)


_XACT_BITS = 0xFFF0
_XMIN_FROZEN = 0x0300
_XMAX_HINTS = 0x0C00  # committed, invalid
_SPECULATIVE = 0xFFFE


def _clear_tuple_hints(page: bytearray, offset: int, block: int, number: int) -> None:
    """Replay knows no command ids, and of a speculative insertion not the token that stands for its place."""
    infomask = _U16.unpack_from(page, offset + 20)[0]
    hints = _XMAX_HINTS if infomask & _XMIN_FROZEN == _XMIN_FROZEN else _XACT_BITS
    _U16.pack_into(page, offset + 20, infomask & ~hints)
    page[offset + 8 : offset + 12] = bytes(4)
    if _U16.unpack_from(page, offset + 16)[0] == _SPECULATIVE:
        struct.pack_into("=HHH", page, offset + 12, block >> 16, block & 0xFFFF, number)


_BTREE_LEAF, _BTREE_UNLOGGED = 0x0001, 0x0060  # split end, has garbage


def _btree(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    _clear_unused(page, told)
    flags = _U16.unpack_from(page, told.special + 12)[0]
    if flags & _BTREE_LEAF:
        _clear_line_flags(page, told)
    # The cycle of a vacuum is not logged.
    struct.pack_into("=HH", page, told.special + 12, flags & ~_BTREE_UNLOGGED, 0)


_HASH_TYPE, _HASH_ITEMS, _HASH_DEAD = 0x000F, (0x0001, 0x0002), 0x0080  # overflow, bucket; has dead tuples


def _hash(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    _clear_unused(page, told)
    flags = _U16.unpack_from(page, told.special + 12)[0]
    if flags & _HASH_TYPE == 0:
        _clear_content(page)
        return
    if flags & _HASH_TYPE in _HASH_ITEMS:
        _clear_line_flags(page, told)
    _U16.pack_into(page, told.special + 12, flags & ~_HASH_DEAD)


_GIST_LEAF, _GIST_UNLOGGED = 0x0001, 0x0018  # follow right, has garbage


def _gist(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    _clear_unused(page, told)
    page[told.special : told.special + 8] = bytes(8)  # another LSN
    flags = _U16.unpack_from(page, told.special + 12)[0]
    if flags & _GIST_LEAF:
        _clear_line_flags(page, told)
    _U16.pack_into(page, told.special + 12, flags & ~_GIST_UNLOGGED)


_GIN_DELETED = 0x0004


def _gin(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    if _U16.unpack_from(page, told.special + 6)[0] & _GIN_DELETED:
        _clear_content(page)
    elif told.lower > HEADER_SIZE:
        _clear_unused(page, told)


_SPGIST_META = 0x0001


def _spgist(page: bytearray, told: Header, block: int) -> None:
    _clear_hints(page, told)
    _clear_unused(page, told)
    if _U16.unpack_from(page, told.special)[0] & _SPGIST_META:
        # After the magic number: where there was room last, which nobody logs.
        page[HEADER_SIZE + 4 : told.special] = bytes(told.special - HEADER_SIZE - 4)


_BRIN_EVACUATE = 0x0001


def _brin(page: bytearray, told: Header, block: int) -> None:
    _clear_unused(page, told)
    _brin_map(page, told, block)


def _brin_meta(page: bytearray, told: Header, block: int) -> None:
    if told.lower > HEADER_SIZE:
        _clear_unused(page, told)
    _brin_map(page, told, block)


def _brin_map(page: bytearray, told: Header, block: int) -> None:
    """The map itself lies where other pages have unused space."""
    _clear_hints(page, told)
    flags = _U16.unpack_from(page, told.special + 4)[0]
    _U16.pack_into(page, told.special + 4, flags & ~_BRIN_EVACUATE)


# --- the parts of a page ------------------------------------------------------------------------------------


def _lines(page: bytes | bytearray | memoryview, told: Header) -> Iterator[tuple[int, int, int]]:
    """Offset, flags and length of each line pointer."""
    for line in struct.unpack_from(f"={(told.lower - HEADER_SIZE) // 4}I", page, HEADER_SIZE):
        yield line & 0x7FFF, line >> 15 & 3, line >> 17


def _clear_hints(page: bytearray, told: Header) -> None:
    _U16.pack_into(page, _FLAGS_AT, told.flags & ~_HINTS)
    page[_PRUNE_XID] = bytes(4)


def _clear_unused(page: bytearray, told: Header) -> None:
    page[told.lower : told.upper] = bytes(told.upper - told.lower)


def _clear_line_flags(page: bytearray, told: Header) -> None:
    """Of used ones: that an index entry is dead is a hint."""
    for at in range(HEADER_SIZE, told.lower - 3, 4):
        line = int.from_bytes(page[at : at + 4], "little")
        page[at : at + 4] = (line & ~_LINE_FLAGS).to_bytes(4, "little")


def _clear_content(page: bytearray) -> None:
    """Of a page that holds nothing any more, and is made anew when it is used."""
    page[HEADER_SIZE:] = bytes(len(page) - HEADER_SIZE)
    page[_LOWER_AT : _LOWER_AT + 4] = bytes(4)


# --- sequences ----------------------------------------------------------------------------------------------

_SEQUENCE_MAGIC = (0x1717).to_bytes(4, "little") + bytes(4)
_SEQUENCE_SIZE = 17


@dataclass(frozen=True)
class SequenceState:
    """`logged_ahead`: so many more values may be given out before the next WAL record."""

    last_value: int
    logged_ahead: int
    is_called: bool


def is_sequence(page: bytes | bytearray | memoryview, block: int) -> bool:
    return block == 0 and bytes(page[-8:]) == _SEQUENCE_MAGIC


def sequence_state(page: bytes | memoryview) -> tuple[SequenceState, bytes] | None:
    """Of a sequence's page, with what is left of the page beside it; None when it holds no such thing."""
    told = header(page)
    first = next(_lines(page, told), None) if told is not None else None
    if first is None or first[1] != _NORMAL:
        return None
    at = first[0] + page[first[0] + 22]
    if at + _SEQUENCE_SIZE > len(page):
        return None
    rest = bytearray(masked(page, 0))
    rest[at : at + _SEQUENCE_SIZE] = bytes(_SEQUENCE_SIZE)
    state = SequenceState(
        _I64.unpack_from(page, at)[0], _I64.unpack_from(page, at + 8)[0], bool(page[at + _SEQUENCE_SIZE - 1])
    )
    return state, bytes(rest)


# --- what the visibility map promises -----------------------------------------------------------------------


def is_all_visible(page: bytes | memoryview) -> bool:
    """The heap page's own flag, which is never clear while its bit in the map is set."""
    told = header(page)
    return told is not None and bool(told.flags & _ALL_VISIBLE)


def is_all_frozen(page: bytes | memoryview) -> bool:
    """Whether no tuple of a heap page names a transaction that freezing would have to look at. A restore asks it of
    many pages: one loop, one look at each tuple."""
    told = header(page)
    if told is None:
        return False
    for line in struct.unpack_from(f"={(told.lower - HEADER_SIZE) // 4}I", page, HEADER_SIZE):
        if line & _LINE_FLAGS != _NORMAL << 15:
            continue
        xmin, xmax, infomask = _XIDS.unpack_from(page, line & 0x7FFF)
        if xmax and (xmax > _LAST_SPECIAL_XID or infomask & _XMAX_IS_MULTI):
            return False
        if xmin > _LAST_SPECIAL_XID and infomask & _XMIN_FROZEN != _XMIN_FROZEN:
            return False
    return True


_XIDS = struct.Struct("=II12xH")  # xmin, xmax, infomask
_LAST_SPECIAL_XID, _XMAX_IS_MULTI = 2, 0x1000


# --- checksums ----------------------------------------------------------------------------------------------

_COLUMNS = struct.Struct("=32I")
_PRIME, _WORD = 16777619, 0xFFFFFFFF
_BASES = _COLUMNS.unpack(
    bytes.fromhex(
        "e9361f5b605952b8aa50ab022a6de61d7a46ff79a3f8b99bd27c7e212c3de183"
        "4f47d4f870b99ee316aec642fa1632995d3b097b3cffda982a9018f7db9c1c0b"
        "4b768fe5bc367618b13b7b5ddee73de779c9be92b2c0a6cc79094a30d443aa85"
        "bb253178a2eaa86cc6ea07e43efc5c4b768cbf9fbe20ca15d39fcaf256d79b95"
    )
)
"""Of a little-endian machine, as all are that PostgreSQL is packaged for here."""


def with_checksum(page: bytes | bytearray, block: int) -> bytes:
    """The page with the checksum that belongs there: FNV-1a over 32 columns of words. Source: `checksum_impl.h`."""
    out = bytearray(page)
    out[8:10] = bytes(2)
    sums = list(_BASES)
    for row in (*_COLUMNS.iter_unpack(out), (0,) * 32, (0,) * 32):
        for column, word in enumerate(row):
            mixed = sums[column] ^ word
            sums[column] = (mixed * _PRIME & _WORD) ^ mixed >> 17
    folded = block
    for word in sums:
        folded ^= word
    _U16.pack_into(out, 8, folded % 0xFFFF + 1)
    return bytes(out)
