"""WAL to another tier: two listings, then what the target lacks, oldest first. The stream may put WAL there itself and
removes heads when it does; both may run at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dr_pipelines.errors import IntegrityError, ObjectLocked
from dr_pipelines.replication.copy import Copied, Copier
from dr_pipelines.replication.wal_policy import WalDue
from dr_pipelines.repository.layout import wal_file_prefix
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, read_all


@dataclass(frozen=True)
class CopiedWal:
    """`damaged` names what the source has in no whole copy."""

    copied: Copied
    damaged: tuple[IntegrityError, ...]


def copy_wal(copier: Copier, due: WalDue) -> CopiedWal:
    """Raises what a store raises. What left the source since it was listed is passed over: the next run sees what came
    instead."""
    errors = [error for key in due.descriptions if (error := _copy_description(copier, key)) is not None]
    copied = _copy_whole(copier, due.whole) + copier.copy(due.heads, {})
    gone = {wal_file_prefix(damage.stored.key) for damage in copied.damaged}
    _remove(copier.target, (key for key in due.stale if wal_file_prefix(key) not in gone))
    errors += [damage.error for damage in copied.damaged if isinstance(damage.error, IntegrityError)]
    return CopiedWal(copied, tuple(errors))


def _copy_whole(copier: Copier, due: Sequence[tuple[StoredObject, ...]]) -> Copied:
    """`damaged` is what no object holds whole: where one is damaged, the next that holds the same file is tried."""
    total, turn = Copied(), 0
    while batch := [any_of[turn] for any_of in due if turn < len(any_of)]:
        copied = copier.copy(batch, {})
        damaged = {damage.stored.key for damage in copied.damaged}
        due = [any_of for any_of in due if turn < len(any_of) and any_of[turn].key in damaged]
        last = {any_of[turn].key for any_of in due if turn + 1 == len(any_of)}
        total += replace(copied, damaged=tuple(damage for damage in copied.damaged if damage.stored.key in last))
        turn += 1
    return total


def _copy_description(copier: Copier, key: str) -> IntegrityError | None:
    try:
        data = read_all(copier.source.store, key)
        int(json.loads(data)["segment_size"])
    except (ValueError, KeyError, TypeError):
        return IntegrityError(f"{key} on {copier.source.store.name} is unreadable")
    copier.target.put(key, Body.of(data))
    return None


def _remove(target: Repository, keys: Iterable[str]) -> None:
    for key in keys:
        with contextlib.suppress(ObjectLocked):
            target.store.delete(key)
