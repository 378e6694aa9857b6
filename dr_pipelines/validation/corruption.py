"""Is a restored copy sound inside: its pages, its indexes, the files of its relations?

PostgreSQL's own programs say so where they can. Each check runs on the copy that was promoted, passes only on what it
saw, and says what it could not look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.commands import Completed
from dr_pipelines.errors import ServerError, ServerUnavailable
from dr_pipelines.postgres import tools
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.wording import counted

_NAMED = 10
_JOBS = 2
_FIRST_WITH_CHECKUNIQUE = 17_00_00
_BAD_PAGE = re.compile(r'verification failed in file "([^"]+)", block (\d+)')
_COUNTED = re.compile(r"^(Files scanned|Blocks scanned|Bad checksums): +(\d+)$", re.MULTILINE)
_LOOKED_AT = re.compile(r'checking (btree index|heap table) "([^"]+)"')
_OF_THE_HOST = re.compile(
    r"No space left on device|out of memory|could not (?:access file|load library) |canceling statement|"
    r"terminating connection|server closed the connection"
)
"""In place of what is damaged: what this machine lacks, or who ended the question."""
_CORRUPT = re.compile(r'^(?:btree index|heap table) "([^"]+)".*:\n((?:[ \t]+.*\n?)+)', re.MULTILINE)


# --- pages ----------------------------------------------------------------------------------------------------


def page_checksums_match(copy: RestoredCopy) -> CheckResult:
    """Every page of the copy at rest against its checksum: `pg_checksums --check`."""
    name = "page_checksums_match"
    if not copy.plan.page_checksums:
        return passed(name, "the plan does not ask for page checksums", applies=False)
    ((on,),) = copy.server().ask("SELECT current_setting('data_checksums')")
    if on != "on":
        hint = (
            "`pg_checksums --enable` on the source, while it is stopped, lets damaged pages be seen; "
            "`validation.page_checksums: false` in the plan says that there are none."
        )
        return not_proven(name, "the cluster has no data checksums: a damaged page cannot be told", hint=hint)
    host = copy.scratch.host
    with copy.scratch.at_rest() as data_dir:
        command = tools.pg_checksums(data_dir, bin_dir=host.bin_dir, user=host.os_user)
        done = host.runner.run(command, check=False)
    told = {what: int(number) for what, number in _COUNTED.findall(done.stdout)}
    blocks, bad = told.get("Blocks scanned", 0), told.get("Bad checksums", 0)
    details = {"files": told.get("Files scanned", 0), "pages": blocks}
    if bad:
        pages = [f"{file} block {block}" for file, block in _BAD_PAGE.findall(done.stderr)]
        return failed(
            name, f"{bad:,} of {counted(blocks, 'page')} not as their checksum says", damaged=pages[:_NAMED], **details
        )
    if done.returncode != 0 or not blocks:
        return not_proven(name, f"the pages could not be read: {_last(done)}", **details)
    return passed(
        name, f"{counted(blocks, 'page')} in {counted(details['files'], 'file')}: all match their checksums", **details
    )


# --- indexes --------------------------------------------------------------------------------------------------


def indexes_are_sound(copy: RestoredCopy) -> CheckResult:
    """Every B-tree and every table, and that each row is in each index: `pg_amcheck --heapallindexed`."""
    name = "indexes_are_sound"
    if not copy.plan.amcheck:
        return passed(name, "the plan does not ask for amcheck", applies=False)
    if not copy.server().ask("SELECT FROM pg_available_extensions WHERE name = 'amcheck'"):
        hint = "install PostgreSQL's contrib modules where backups are validated."
        return not_proven(name, "the extension amcheck is not installed here", hint=hint)
    host, connection = copy.scratch.host, copy.server().connection
    unique = copy.backup.postgres_version_num >= _FIRST_WITH_CHECKUNIQUE
    command = tools.pg_amcheck(connection, jobs=_JOBS, unique=unique, bin_dir=host.bin_dir)
    done = host.runner.run(command, check=False)
    seen = _LOOKED_AT.findall(done.stderr)
    indexes = len({relation for kind, relation in seen if kind == "btree index"})
    tables = len({relation for kind, relation in seen if kind == "heap table"})
    details = {"indexes": indexes, "tables": tables, "databases": copy.databases(), "unique": unique}
    corrupt = {relation: " ".join(said.split()) for relation, said in _CORRUPT.findall(done.stdout)}
    unread = {relation: said for relation, said in corrupt.items() if _OF_THE_HOST.search(said)}
    corrupt = {relation: said for relation, said in corrupt.items() if relation not in unread}
    if corrupt:
        first, said = next(iter(corrupt.items()))
        named = [f"{relation}: {what}" for relation, what in corrupt.items()]
        return failed(
            name, f"{counted(len(corrupt), 'relation')} damaged: {first}: {said}", damaged=named[:_NAMED], **details
        )
    if unread:
        first, said = next(iter(unread.items()))
        return not_proven(name, f"{counted(len(unread), 'relation')} not looked at: {first}: {said}", **details)
    if done.returncode != 0:
        return not_proven(name, f"pg_amcheck did not end well: {_last(done)}", **details)
    if not indexes or not tables:
        return not_proven(name, "pg_amcheck saw no index or no table", **details)
    return passed(
        name,
        f"{counted(indexes, 'index', 'indexes')} and {counted(tables, 'table')} checked, every row against its indexes",
        **details,
    )


def indexes_are_valid(copy: RestoredCopy) -> CheckResult:
    """No index is left half made. One that was so at the source already is no fault of the backup, and is named."""
    name, broken, known, count = "indexes_are_valid", list[str](), list[str](), 0
    for database in copy.databases():
        told = copy.facts.database(database) if copy.facts is not None else None
        at_source = told.objects.get("index", {}) if told is not None else {}
        for index, plain, is_whole in copy.server(database).ask(_INDEXES):
            count += 1
            if not is_whole:
                was = re.search(r" (invalid|not ready)\b", at_source.get(index, at_source.get(plain, "")))
                (known if was else broken).append(f"{database}: {index}")
    details = {"indexes": count, "invalid": broken[:_NAMED], "invalid_at_source": known[:_NAMED]}
    if broken:
        hint = "`REINDEX INDEX CONCURRENTLY` makes it anew; it was left by a failed CREATE INDEX CONCURRENTLY."
        return failed(
            name, f"{len(broken)} of {counted(count, 'index', 'indexes')} not valid: {broken[0]}", hint=hint, **details
        )
    if not count:
        return not_proven(name, "there is no index", **details)
    if known:
        said = (
            f"{len(known)} of {counted(count, 'index', 'indexes')} invalid at the source already ({known[0]}), "
            "the others are valid"
        )
        return passed(name, said, **details)
    return passed(name, f"{counted(count, 'index', 'indexes')}: all are valid", **details)


_INDEXES = """
SELECT format('%I.%I', n.nspname, c.relname), n.nspname || '.' || c.relname,
       i.indisvalid AND i.indisready AND i.indislive
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' ORDER BY 1
"""


# --- relations ------------------------------------------------------------------------------------------------


@dataclass
class _Seen:
    """Of all databases: relations with files and their bytes; rows that were read, and the bytes that they lie in; what
    this machine could not read."""

    relations: int = 0
    bytes: int = 0
    rows: int = 0
    read: int = 0
    unread: list[str] = field(default_factory=list)


def relations_are_whole(copy: RestoredCopy) -> CheckResult:
    """Every relation has its file, of whole blocks and no shorter than its statistics say; rows can be read with all
    that is stored apart (TOAST). Unlogged relations are named: no backup has what is in them."""
    name, seen, wrong, unlogged = "relations_are_whole", _Seen(), list[str](), list[str]()
    databases = copy.databases()
    for database in databases:
        for relation, persistence, size, pages, block in copy.server(database).ask(_FILES):
            seen.relations += 1
            seen.bytes += size or 0
            if persistence == "u":
                unlogged.append(f"{database}: {relation}")
            if (said := _fault(size, pages, block, logged=persistence == "p")) is not None:
                wrong.append(f"{database}: {relation} {said}")
    for database in databases:
        wrong += _unreadable(copy, database, min(1.0, _READ / max(seen.bytes, 1)), seen)
    details: dict[str, Any] = {"relations": seen.relations, "bytes": seen.bytes}
    details |= {"rows_read": seen.rows, "bytes_read": seen.read}
    details |= {"unlogged": unlogged[:_NAMED], "wrong": wrong[:_NAMED]}
    if wrong:
        return failed(name, f"{len(wrong)} of {counted(seen.relations, 'relation')} not whole: {wrong[0]}", **details)
    if seen.unread:
        more = f", and {len(seen.unread) - 1} more" if len(seen.unread) > 1 else ""
        return not_proven(name, f"this machine could not read all tables: {seen.unread[0]}{more}", **details)
    if not seen.relations or not seen.rows:
        return not_proven(name, f"no row was read in {counted(seen.relations, 'relation')}", **details)
    empty = f"; unlogged ones are empty, for no backup has what was in them: {len(unlogged)}" if unlogged else ""
    said = f"{counted(seen.relations, 'relation')}: all have their files, {counted(seen.rows, 'row')} read whole{empty}"
    return passed(name, said, **details)


_READ = 512 * 1024 * 1024
"""Bytes of tables that are read, of all databases; of more than that a share of each table's pages."""

# The size of all segments: PostgreSQL goes on to the next while one is full.
_FILES = """
SELECT format('%I.%I', n.nspname, c.relname), c.relpersistence,
       CASE WHEN (pg_stat_file(pg_relation_filepath(c.oid), true)).size IS NULL THEN NULL
            ELSE pg_relation_size(c.oid) END,
       c.relpages, current_setting('block_size')::int
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE pg_relation_filepath(c.oid) IS NOT NULL AND c.relpersistence <> 't' ORDER BY 1
"""


def _fault(size: int | None, pages: int, block: int, *, logged: bool) -> str | None:
    if size is None:
        return "has no file"
    if size % block:
        return f"ends within a block: it has {size} bytes"
    if logged and size < pages * block:
        return f"is cut short: it has {size // block} pages, and had {pages} when it was last looked through"
    return None


_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
  AND pg_relation_size(c.oid) > 0 AND n.nspname <> 'information_schema' ORDER BY 1
"""


def _unreadable(copy: RestoredCopy, database: str, share: float, seen: _Seen) -> Iterator[str]:
    """Reads rows as text, which brings back what is stored apart and shows whether it can be understood. ONLY: tables
    that inherit from it are read by themselves, and foreign ones lie on another server."""
    server = copy.server(database)
    sample = "" if share >= 1 else f" TABLESAMPLE SYSTEM ({share * 100:.6f})"
    for table, size in server.ask(_TABLES):
        try:
            ((rows, _),) = server.ask(f"SELECT count(*), sum(length(r::text)) FROM ONLY {table} AS r{sample}")
        except ServerUnavailable:
            raise
        except ServerError as error:
            said = f"{database}: {table} cannot be read: {error.message}"
            if error.tells_of_the_host:
                seen.unread.append(said)
            else:
                yield said
        else:
            seen.rows += int(rows)
            seen.read += int(size * share)


def _last(done: Completed) -> str:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "warning" in line]
    return (errors or lines or [f"exit code {done.returncode}"])[-1].strip()
