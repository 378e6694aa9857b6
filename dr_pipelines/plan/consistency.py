"""Where a plan's sections contradict each other. Pure; each mistake names its YAML path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from urllib.parse import urlsplit

from pydantic import BaseModel

from dr_pipelines.plan.model import Plan, S3StorePlan, ServerPlan
from dr_pipelines.plan.references import Secret, is_reference


@dataclass(frozen=True)
class Mistake:
    """`path` as in `databases.shop.wal.tiers`; `found` and `expected` are phrases."""

    path: str
    found: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line is not None else ""
        return f"{self.path}{line}: {self.found}; {self.expected}"


def mistakes(plan: Plan) -> list[Mistake]:
    """All contradictions; none of them needs a secret or a connection."""
    return [*_stores_overlap(plan), *_servers(plan), *_files(plan), *_systems(plan), *_data_classes(plan)]


def missing_secrets(plan: Plan) -> list[Mistake]:
    """Every secret that the plan refers to and that is not there now."""
    unset = [
        Mistake(f"encryption.recipients[{position}]", f"{recipient} is not set", "export the public key")
        for position, recipient in enumerate(plan.encryption.recipients if plan.encryption else ())
        if is_reference(recipient)
    ]
    return unset + [
        Mistake(path, f"the secret {secret} is not there", "export the variable or write the file")
        for path, secret in _secrets(plan, "")
        if not secret.present
    ]


def _secrets(value: object, path: str) -> Iterator[tuple[str, Secret]]:
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, BaseModel):
        yield from _secrets({name: getattr(value, name) for name in type(value).model_fields}, path)


def _stores_overlap(plan: Plan) -> Iterator[Mistake]:
    """Two tiers in one place are one disaster."""
    for (name, store), (other_name, other) in combinations(plan.storage.items(), 2):
        if store.place == other.place:
            yield Mistake(
                f"storage.{other_name}",
                f"is in the same place as storage.{name} ({' '.join(store.place)})",
                "give every tier a bucket or folder of its own",
            )


def _servers(plan: Plan) -> Iterator[Mistake]:
    for name, server in plan.databases.items():
        path = f"databases.{name}"
        used = dict(server.storage.items())
        for tier, store in used.items():
            if store not in plan.storage:
                yield _unknown(f"{path}.storage.{tier}", store, "storage", plan.storage)
        if len(set(used.values())) < len(used):
            yield Mistake(f"{path}.storage", "two tiers name one store", "every tier needs a store of its own")
        for tier in server.wal.tiers:
            if tier not in used:
                yield Mistake(f"{path}.wal.tiers", f"{tier} has no store", f"name tiers of {path}.storage")
        if not server.wal.tiers:
            yield Mistake(f"{path}.wal.tiers", "is empty", "WAL must go to at least one tier")
        yield from _backs_up_into_itself(plan, path, server)
    yield from _names_collide(plan)


def _names_collide(plan: Plan) -> Iterator[Mistake]:
    """Dagster writes `a-b` and `a_b` as one name, and two streams on one slot of one server take each other's WAL."""
    for (name, server), (other_name, other) in combinations(plan.databases.items(), 2):
        if name.replace("-", "_") == other_name.replace("-", "_"):
            yield Mistake(
                f"databases.{other_name}", f"differs from {name} only by - and _", "give the servers distinct names"
            )
        same = (server.connection.host, server.connection.port) == (other.connection.host, other.connection.port)
        if same:
            yield Mistake(
                f"databases.{other_name}.connection",
                f"is the server of databases.{name} ({other.connection.host}:{other.connection.port})",
                "name every PostgreSQL server once: a backup holds all of its databases",
            )


def _backs_up_into_itself(plan: Plan, path: str, server: ServerPlan) -> Iterator[Mistake]:
    """Supabase keeps the index of its objects in the project's own database: lost with it."""
    host = server.connection.host
    for tier, name in server.storage.items():
        store = plan.storage.get(name)
        if not isinstance(store, S3StorePlan) or store.profile != "supabase" or store.endpoint is None:
            continue
        project = (urlsplit(store.endpoint).hostname or "").split(".")[0]
        if host.endswith((".supabase.co", ".supabase.com")) and project and project in host.split("."):
            yield Mistake(
                f"{path}.storage.{tier}",
                f"{name} is Supabase Storage of the very project that is backed up ({project})",
                "its index of objects lives in that project's database and is lost with it: use another project",
            )


def _files(plan: Plan) -> Iterator[Mistake]:
    for name, files in plan.file_storage.items():
        for tier, store in files.storage.items() if files.storage else ():
            if store not in plan.storage:
                yield _unknown(f"file_storage.{name}.storage.{tier}", store, "storage", plan.storage)


def _systems(plan: Plan) -> Iterator[Mistake]:
    systems = {name: (group, system) for group, members in plan.systems.items() for name, system in members.items()}
    for name, (group, system) in systems.items():
        path = f"systems.{group}.{name}"
        if system.server is not None and system.server not in plan.databases:
            yield _unknown(f"{path}.server", system.server, "databases", plan.databases)
        for needed in system.depends_on:
            if needed not in systems:
                yield _unknown(f"{path}.depends_on", needed, "systems", systems)
    try:
        TopologicalSorter({name: system.depends_on for name, (_, system) in systems.items()}).prepare()
    except CycleError as error:
        yield Mistake("systems", f"depend on each other in a circle: {' → '.join(error.args[1])}", "break the circle")


def _data_classes(plan: Plan) -> Iterator[Mistake]:
    for name, data in plan.data_classes.items():
        path = f"data_classes.{name}"
        if data.server is not None and data.server not in plan.databases:
            yield _unknown(f"{path}.server", data.server, "databases", plan.databases)
        elif data.server is not None and data.rpo == timedelta(0) and not plan.databases[data.server].wal.synchronous:
            yield Mistake(
                f"{path}.rpo",
                "promises to lose nothing while WAL is not synchronous",
                f"set databases.{data.server}.wal.synchronous to true, or promise less",
            )
        for files in data.file_sets:
            if files not in plan.file_storage:
                yield _unknown(f"{path}.file_sets", files, "file_storage", plan.file_storage)


def _unknown(path: str, found: str, section: str, known: object) -> Mistake:
    names = ", ".join(known) if isinstance(known, dict) and known else "nothing yet"
    return Mistake(path, f"{found!r} is not under {section}", f"there is: {names}")
