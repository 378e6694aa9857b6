"""Rows that point at files, read out of a database: where a file should be, of which size and digest. What is made of
them does not belong here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dr_pipelines.errors import ServerError
from dr_pipelines.plan.file_sets import ReferencePlan
from dr_pipelines.postgres.session import ReadSession

Row = tuple[bytes, int | None, bytes | None, str | None, str | None]
"""Path as the column has it, size in bytes, digest as it is written there, ETag without quotes, version."""

Object = tuple[bytes, int | None, str | None, str | None, int | None]
"""Name, size in bytes, ETag without quotes, version, time of the last change in microseconds since 1970."""

_SUPABASE = {
    "table": "storage.objects",
    "path": "name",
    "size": "(metadata->>'size')::bigint",
    "digest": "NULL::bytea",
    "etag": """trim(both '"' from metadata->>'eTag')""",
    "version": "version",
    "changed": "updated_at",
}
"""Source: the migrations of supabase/storage. `name` is the key that its S3 protocol shows."""


def read_rows(
    session: ReadSession, reference: ReferencePlan, *, since: datetime | None = None, before: datetime | None = None
) -> Iterator[list[Row]]:
    """In the session's transaction, some thousands at a time; rows that name no file are left out. `since` and `before`
    take those that were written then, of a reference that says when (all others are given whole). Raises `ServerError`
    that names the table or column that is not there."""
    columns = _columns(session, reference)
    conditions, values = [f"{columns['path']} IS NOT NULL", f"{columns['path']}::text <> ''"], []
    if reference.supabase is not None:
        conditions.append("bucket_id = %s")
        values.append(reference.supabase)
    for comparison, instant in ((">=", since), ("<", before)):
        if instant is not None and columns["changed"] != "NULL":
            conditions.append(f"{columns['changed']} {comparison} %s::timestamptz")
            values.append(instant.isoformat())
    query = (
        f"SELECT textsend({columns['path']}::text), {columns['size']}, {columns['digest']}, {columns['etag']}, "
        f"{columns['version']} FROM {columns['table']} WHERE {' AND '.join(conditions)}"
    )
    yield from session.stream(query, values)


def read_objects(session: ReadSession, bucket: str) -> Iterator[list[Object]]:
    """Of a bucket of Supabase Storage, in the session's transaction. An object's version is another one whenever it is
    written anew, also with the same content."""
    query = (
        f"SELECT textsend({_SUPABASE['path']}), {_SUPABASE['size']}, {_SUPABASE['etag']}, {_SUPABASE['version']}, "
        f"(extract(epoch FROM {_SUPABASE['changed']}) * 1000000)::bigint "
        f"FROM {_SUPABASE['table']} WHERE bucket_id = %s"
    )
    yield from session.stream(query, (bucket,))


def says_when(reference: ReferencePlan) -> bool:
    """Whether its rows say when they were written."""
    return reference.supabase is not None or reference.changed is not None


def _columns(session: ReadSession, reference: ReferencePlan) -> dict[str, str]:
    """As expressions of SQL."""
    if reference.supabase is not None:
        return _SUPABASE
    found = {"table": _quoted(session, str(reference.table), schema="public")}
    found |= {"etag": "NULL::text", "version": "NULL::text"}
    found["path"] = _quoted(session, str(reference.path))
    found["size"] = f"{_quoted(session, reference.size)}::bigint" if reference.size else "NULL::bigint"
    found["digest"] = f"textsend({_quoted(session, reference.digest)}::text)" if reference.digest else "NULL::bytea"
    found["changed"] = _quoted(session, reference.changed) if reference.changed else "NULL"
    return found


def _quoted(session: ReadSession, name: str, schema: str | None = None) -> str:
    """A name as a person writes it in SQL, for a query; without a schema of its own it is in `schema`."""
    try:
        ((parts,),) = session.ask(
            "SELECT array_agg(quote_ident(part) ORDER BY place) "
            "FROM unnest(parse_ident(%s)) WITH ORDINALITY AS parsed (part, place)",
            (name,),
        )
    except ServerError as error:
        error.hint = "write names of tables and columns under `references` in the plan as in SQL."
        raise
    given = [str(part) for part in parts]
    return ".".join([schema, *given] if schema is not None and len(given) == 1 else given)
