"""Does the plan know what is on the server? What is there against the newest backup's facts and the data classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.postgres.inventory import Inventory
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.wording import are, counted

EVERYTHING_IS_COVERED = "everything_is_covered"
_SHOWN = 5


def everything_is_covered(
    now: Inventory, told: SourceFacts | None, tables: Sequence[str], *, why_not_told: str, file_sets: Sequence[str] = ()
) -> CheckResult:
    """`tables` are the names and patterns of the server's data classes; where there are none, no table can be missed.
    A backup holds the whole server, so what is new is in the next one: it is reported because nobody has restored it,
    and a restore may need a directory, a library or a right for it that is not there."""
    new = [] if told is None else [*_new(now, told)]
    unnamed, nowhere = _tables(now, tables)
    details = {
        "databases": len(now.databases),
        "tables": sum(len(found.tables) for found in now.databases.values()),
        "new": new,
        "tables_of_no_data_class": unnamed,
        "named_and_nowhere": nowhere,
        "not_looked_at": [*(f"file set {name}" for name in file_sets), *now.trouble],
    }
    said = [
        *_said("not in the newest backup: ", new),
        *_said("in no data class: ", unnamed),
        *_said("named in a data class and in no database: ", nowhere),
    ]
    if said:
        hint = "name tables in data_classes (patterns as `sales.*` serve); `dr backup SERVER --full` takes what is new."
        return failed(EVERYTHING_IS_COVERED, "; ".join(said), **details, hint=hint)
    if now.trouble:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in now.trouble.items())
        return not_proven(EVERYTHING_IS_COVERED, f"not every database could be looked into: {reasons}", **details)
    if told is None:
        return not_proven(EVERYTHING_IS_COVERED, f"what is new cannot be told: {why_not_told}", **details)
    there = sum(len(found.tables) for found in now.databases.values())
    left_out = f"; {counted(len(file_sets), 'file set')} {are(len(file_sets))} not looked at" if file_sets else ""
    named = "each in a data class" if tables else "and no data class names tables of this server"
    return passed(
        EVERYTHING_IS_COVERED,
        f"{counted(there, 'table')} of {counted(len(now.databases), 'database')}, {named}{left_out}",
        **details,
    )


def _new(now: Inventory, told: SourceFacts) -> Iterator[str]:
    """Kinds that the facts do not tell of are not compared."""
    yield from (f"tablespace {name}" for name in _beyond(now.tablespaces, told.cluster.get("tablespace")))
    for name, found in now.databases.items():
        known = told.database(name)
        if known is None:
            if name not in told.trouble:
                yield f"database {name}"
            continue
        yield from (f"schema {schema} of {name}" for schema in _beyond(found.schemas, known.objects.get("schema")))
        extensions = _beyond(found.extensions, known.objects.get("extension"))
        yield from (f"extension {extension} of {name}" for extension in extensions)


def _beyond(now: frozenset[str], known: object) -> list[str]:
    return sorted(now - set(known)) if isinstance(known, dict) else []


def _tables(now: Inventory, named: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that no name fits, and names that fit none. A partition is named with its table."""
    if not named:
        return [], []
    everywhere = {
        (database, table): root for database, found in now.databases.items() for table, root in found.tables.items()
    }
    unnamed = [
        f"{table} of {database}"
        for (database, table), root in everywhere.items()
        if not any(fnmatchcase(table, name) or fnmatchcase(root, name) for name in named)
    ]
    there = {table for _, table in everywhere}
    nowhere = [name for name in named if not any(fnmatchcase(table, name) for table in there)]
    return unnamed, nowhere if not now.trouble else []


def _said(what: str, names: Sequence[str]) -> list[str]:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what}{', '.join(names[:_SHOWN])}{more}"] if names else []
