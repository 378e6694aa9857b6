"""What one transaction did, told from the WAL: how many rows of which tables, and what it removed.

Tables are known here by where they lie (tablespace, database, file); names are the server's to tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dr_pipelines.errors import RepositoryError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.wal_search import WalRecord, WalSearch

LOOKED_AT = 1 << 30
"""Bytes of WAL before a transaction's end in which its records are looked for."""
_XIDS = 1 << 32
_DEFAULT_TABLESPACE = 1663
_BLOCK = re.compile(r"blkref #0: rel (\d+)/(\d+)/(\d+) ")
_SUBTRANSACTIONS = re.compile(r"subxacts:((?: \d+)+)")
_REMOVED = re.compile(r"; rels:((?: [^;\s]+)+)")
_IN_BASE = re.compile(r"\Abase/(\d+)/(\d+)\Z")
_IN_TABLESPACE = re.compile(r"\Apg_tblspc/(\d+)/[^/]+/(\d+)/(\d+)\Z")
_MANY = re.compile(r"ntuples: (\d+)|(\d+) tuples")
_NEXT = re.compile(r"RUNNING_XACTS nextXid (\d+)")
_DEEDS = {"INSERT": "inserted", "MULTI_INSERT": "inserted", "UPDATE": "updated", "HOT_UPDATE": "updated",
          "DELETE": "deleted"}  # fmt: skip


@dataclass(frozen=True, order=True)
class RelationFile:
    """Where a relation lies: oids of tablespace and database, and the number of its file."""

    tablespace: int
    database: int
    number: int

    def __str__(self) -> str:
        return f"{self.tablespace}/{self.database}/{self.number}"


@dataclass(frozen=True)
class RowCounts:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class TransactionRecords:
    """`rows` by file; `removed` are files that its commit deletes: of what was dropped, truncated or rewritten.
    `databases` are what it made or dropped, in pg_waldump's words. `complete`: its beginning was seen."""

    rows: dict[RelationFile, RowCounts]
    removed: tuple[RelationFile, ...]
    databases: tuple[str, ...]
    subtransactions: int
    complete: bool


def read_transaction(xid: int, end: Lsn, search: WalSearch) -> TransactionRecords:
    """Of the transaction whose commit record begins at `end`; `search` goes back from there. Raises `RepositoryError`
    when that record is not there."""
    records = search.records()
    commit = next((record for record in records if record.lsn <= end), None)
    if commit is None or commit.lsn != end:
        raise RepositoryError(f"the end of transaction {xid} at {end} is not in the stored WAL any more")
    family = {xid, *_numbers(_SUBTRANSACTIONS, commit.said)}
    counts: Counter[tuple[RelationFile, str]] = Counter()
    databases: list[str] = []
    complete = False
    for record in records:
        if (running := _NEXT.match(record.said)) is not None and not _assigned(xid, int(running[1])):
            complete = True
            break
        if record.xid not in family:
            continue
        if record.manager == "Database":
            databases.append(record.said)
        counts.update(_rows(record))
    return TransactionRecords(
        {file: _of_file(file, counts) for file in sorted({file for file, _ in counts})},
        tuple(_removed(commit.said)),
        tuple(reversed(databases)),
        len(family) - 1,
        complete,
    )


def _assigned(xid: int, next_xid: int) -> bool:
    """Whether the transaction had its number when `next_xid` was the next one; numbers run in a circle."""
    return (next_xid - xid - 1) % _XIDS < _XIDS // 2


def _rows(record: WalRecord) -> Iterator[tuple[RelationFile, str]]:
    deed = _DEEDS.get(record.said.partition(" ")[0].partition("+")[0]) if record.manager in ("Heap", "Heap2") else None
    block = _BLOCK.search(record.said)
    if deed is None or block is None:
        return
    many = _MANY.search(record.said) if record.manager == "Heap2" else None
    file = RelationFile(*map(int, block.groups()))
    for _ in range(int(many[1] or many[2]) if many else 1):
        yield file, deed


def _of_file(file: RelationFile, counts: Counter[tuple[RelationFile, str]]) -> RowCounts:
    return RowCounts(*(counts[file, deed] for deed in ("inserted", "updated", "deleted")))


def _removed(said: str) -> Iterator[RelationFile]:
    found = _REMOVED.search(said)
    for path in found[1].split() if found else ():
        if (base := _IN_BASE.match(path)) is not None:
            yield RelationFile(_DEFAULT_TABLESPACE, int(base[1]), int(base[2]))
        elif (elsewhere := _IN_TABLESPACE.match(path)) is not None:
            yield RelationFile(*map(int, elsewhere.groups()))


def _numbers(pattern: re.Pattern[str], text: str) -> list[int]:
    found = pattern.search(text)
    return [int(number) for number in found[1].split()] if found else []
