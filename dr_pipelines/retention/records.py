"""What each expiry decided and did, as evidence on its tier; and what the next one must know of it: since when WAL is
not needed, and how long what is kept is locked.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.errors import RepositoryError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.repository import layout
from dr_pipelines.retention.decisions import Retained
from dr_pipelines.retention.wal import WalNeed
from dr_pipelines.storage.base import Body, ObjectStore, read_all

Needs = Mapping[str, Sequence[WalNeed]]


@dataclass(frozen=True)
class Record:
    """`needs`: the WAL that stays from then on, by system; `locks`: until when each kept backup was locked; `frozen`:
    names of the guards that stopped it, and then nothing else was decided."""

    at: datetime
    needs: Needs = field(default_factory=dict)
    locks: Mapping[str, datetime] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()


def read_records(store: ObjectStore, name: str, since: datetime) -> list[Record]:
    """Oldest first: those since a time, and the newest of before, which held until the next.

    Raises `RepositoryError` for one that cannot be understood.
    """
    listed = [(found[1], info.key) for info in store.list(layout.EVIDENCE) if (found := layout.parse_evidence(info.key))
              and found[0] == _kind(name)]  # fmt: skip
    before = [entry for entry in sorted(listed) if entry[0] < since]
    records = [_read(store, key) for at, key in sorted(listed) if at >= since]
    for _, key in reversed(before):
        record = _read(store, key)
        records.insert(0, record)
        if not record.frozen:
            break
    return records


def needs_of(records: Iterable[Record], now: Needs, *, at: datetime, grace: timedelta) -> Needs | None:
    """WAL that stays: what is needed now or was at any time within the grace. None: that is not known yet, so all
    stays."""
    decided = [record for record in records if not record.frozen]
    if grace and not any(record.at <= at - grace for record in decided):
        return None
    times = [record.needs for record in decided] if grace else []
    systems = {system for needs in [now, *times] for system in needs}
    return {system: [need for needs in [now, *times] for need in needs.get(system, ())] for system in systems}


def put_record(store: ObjectStore, name: str, planned: Retained, record: Record, outcome: Mapping[str, Any]) -> str:
    key = layout.evidence(_kind(name), record.at, secrets.token_hex(6))
    told = {
        "name": name,
        "tier": planned.tier,
        "at": record.at.isoformat(),
        "frozen": list(record.frozen),
        "wal": {system: [_written(need) for need in needs] for system, needs in record.needs.items()},
        "locks": {label: until.isoformat() for label, until in record.locks.items()},
        "decisions": [
            {"label": d.label, "keep": d.keep, "why": d.why, "until": d.until.isoformat() if d.until else None}
            for d in planned.decisions
        ],
        **outcome,
    }
    store.put(key, Body.of(json.dumps(told, indent=1, default=str).encode() + b"\n"))
    return key


def _kind(name: str) -> str:
    """`name`: of the server, or of the file set; of these no two are alike."""
    return f"retention-{name}"


def _written(need: WalNeed) -> list[Any]:
    return [need.timeline.id, str(need.start), None if need.end is None else str(need.end)]


def _read(store: ObjectStore, key: str) -> Record:
    try:
        told = json.loads(read_all(store, key))
        needs = {
            system: [
                WalNeed(Timeline(line), Lsn.parse(start), None if end is None else Lsn.parse(end))
                for line, start, end in written
            ]
            for system, written in told["wal"].items()
        }
        locks = {label: datetime.fromisoformat(until) for label, until in told["locks"].items()}
        return Record(datetime.fromisoformat(told["at"]), needs, locks, tuple(told["frozen"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RepositoryError(f"{key} on {store.name} is no readable evidence") from error
