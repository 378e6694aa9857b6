"""Where a restore point or the end of a transaction is, looked up in the stored WAL.

PostgreSQL stops at such a target only when it meets it on its way: from a backup that was taken after it, it runs past
everything to the end. So the position is looked up first and is what is restored to, from a backup that lies before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dr_pipelines.errors import TargetUnreachable, WalGap
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.wal_search import WalSearch

_NAMED = 10  # restore points that an error names
_XIDS = 1 << 32  # what WAL records keep of a transaction id


@dataclass(frozen=True)
class Located:
    """The target as a position, and what a person should know of it."""

    target: RecoveryTarget
    note: str


def is_looked_up(target: RecoveryTarget) -> bool:
    return target.kind in ("name", "xid")


def locate(target: RecoveryTarget, search: WalSearch) -> Located:
    """The newest place in the WAL that `target` can mean. Raises `TargetUnreachable` when there is none."""
    found = _named(str(target.value), search) if target.kind == "name" else _ended(int(str(target.value)), search)
    lsn, note = found
    if search.damaged:
        note += f"; a later one could lie in WAL that is damaged: {', '.join(map(str, sorted(search.damaged)))}"
    # PostgreSQL stops after a restore point, whatever is said of transactions.
    inclusive = target.inclusive or target.kind == "name"
    return Located(replace(target, kind="lsn", value=lsn, inclusive=inclusive), note)


def _named(name: str, search: WalSearch) -> tuple[Lsn, str]:
    others: dict[str, None] = {}
    for lsn, there in search.restore_points():
        if there == name:
            return lsn, f"the newest restore point {name!r} is at {lsn} (an earlier one of that name: --lsn)"
        others[there] = None
    known = ", ".join(list(others)[:_NAMED])
    hint = f"the newest that there are: {known}." if known else "there is none at all; `--time` needs none."
    raise _not_there(f"there is no restore point {name!r} in the stored WAL", hint, search)


def _ended(xid: int, search: WalSearch) -> tuple[Lsn, str]:
    for end in search.transaction_ends():
        if end.xid == xid % _XIDS:
            verb = "committed" if end.committed else "was rolled back"
            return end.lsn, f"transaction {xid} {verb} at {end.lsn} ({end.at:%Y-%m-%dT%H:%M:%S.%fZ})"
    raise _not_there(
        f"transaction {xid} neither commits nor is rolled back in the stored WAL",
        "name a transaction as pg_current_xact_id() does (none of a savepoint), or a --time.",
        search,
    )


def _not_there(message: str, hint: str, search: WalSearch) -> Exception:
    for error in search.damaged.values():
        return error  # it could be there
    gaps = ", ".join(f"between {start} and {end}" for start, end in search.gaps)
    if gaps:
        return WalGap(f"{message}, where WAL is missing {gaps}", hint=hint)
    return TargetUnreachable(f"{message} ({search.size >> 20} MiB were searched)", hint=hint)
