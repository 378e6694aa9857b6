"""Where a plan's sections contradict each other. Pure; each mistake names its YAML path."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from dr_pipelines.plan.file_consistency import file_mistakes
from dr_pipelines.plan.file_sets import BucketSource
from dr_pipelines.plan.mistake import Mistake, unknown
from dr_pipelines.plan.model import Plan, ServerPlan
from dr_pipelines.plan.policies import ReplicationPlan
from dr_pipelines.plan.references import Secret, is_reference
from dr_pipelines.plan.store_consistency import store_mistakes
from dr_pipelines.plan.stores import S3StorePlan
from dr_pipelines.plan.values import format_duration

_SUPABASE = (".supabase.co", ".supabase.com")
_SUPABASE_S3 = "/storage/v1/s3"


def mistakes(plan: Plan) -> list[Mistake]:
    """All contradictions; none of them needs a secret or a connection."""
    judges = (
        _credentials_in_addresses, _stores_overlap, _supabase_endpoints, store_mistakes, _servers, _retention, _files,
        _systems_named_twice, _systems, _data_classes,
    )  # fmt: skip
    return [mistake for judge in judges for mistake in judge(plan)]


def missing_secrets(plan: Plan) -> list[Mistake]:
    """Every secret that taking backups needs and that is not there now. The identity is not among them: a host that
    only takes backups rightly has none."""
    unset = [
        Mistake(
            f"encryption.recipients[{position}]",
            f"{recipient} is not set",
            "export the public key where backups are taken; restoring needs only encryption.identity",
        )
        for position, recipient in enumerate(plan.encryption.recipients if plan.encryption else ())
        if is_reference(recipient)
    ]
    return unset + [
        Mistake(path, f"the secret {secret} is not there", "export the variable or write the file")
        for path, secret in _secrets(plan, "")
        if path != "encryption.identity" and not secret.present
    ]


def _secrets(value: object, path: str) -> Iterator[tuple[str, Secret]]:
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, BaseModel):
        yield from _secrets({name: getattr(value, name) for name in type(value).model_fields}, path)


def _credentials_in_addresses(plan: Plan) -> Iterator[Mistake]:
    """What is in an address is shown in errors and by `dr plan show`."""
    for name, store in plan.storage.items():
        for key in ("endpoint", "account_url"):
            address = urlsplit(getattr(store, key, None) or "")
            if address.username or address.password or address.query:
                yield Mistake(
                    f"storage.{name}.{key}",
                    "holds credentials or parameters",
                    "write only the address; secrets have keys of their own (secret_access_key, sas_token)",
                )


def _stores_overlap(plan: Plan) -> Iterator[Mistake]:
    """Two tiers in one place are one disaster; two folders of a bucket that files are only read from are not."""
    only_read = _sources(plan) - _tier_stores(plan)
    for (name, store), (other_name, other) in combinations(plan.storage.items(), 2):
        if not {name, other_name} <= only_read and _overlap(store.place, other.place):
            yield Mistake(
                f"storage.{other_name}",
                f"is in the same place as storage.{name} ({' '.join(store.place)})",
                "give every tier a bucket or folder of its own",
            )


def _sources(plan: Plan) -> set[str]:
    return {f.source.store for f in plan.file_storage.values() if isinstance(f.source, BucketSource)}


def _tier_stores(plan: Plan) -> set[str]:
    used = [*(server.storage for server in plan.databases.values()), *(f.storage for f in plan.file_storage.values())]
    return {str(store) for tiers in used if tiers is not None for _, store in tiers.items()}


def _overlap(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if place[0] == other[0] == "local":
        return Path(place[1]).is_relative_to(other[1]) or Path(other[1]).is_relative_to(place[1])
    return place == other


def _supabase_endpoints(plan: Plan) -> Iterator[Mistake]:
    for name, store in plan.storage.items():
        address = urlsplit(getattr(store, "endpoint", None) or "")
        if (address.hostname or "").endswith(_SUPABASE) and address.path.rstrip("/") != _SUPABASE_S3:
            yield Mistake(
                f"storage.{name}.endpoint",
                f"found {address.path or 'no path'!r} after the host",
                f"Supabase's S3 endpoint ends in {_SUPABASE_S3}",
            )


def _servers(plan: Plan) -> Iterator[Mistake]:
    for name, server in plan.databases.items():
        path = f"databases.{name}"
        used = dict(server.storage.items())
        yield from _tiers(plan, f"{path}.storage", used)
        for position, tier in enumerate(server.wal.tiers):
            if tier not in used:
                yield Mistake(f"{path}.wal.tiers[{position}]", f"{tier} has no store", f"name tiers of {path}.storage")
            if tier in server.wal.tiers[:position]:
                yield Mistake(f"{path}.wal.tiers[{position}]", f"{tier} is there twice", "name every tier once")
        if not server.wal.tiers:
            yield Mistake(f"{path}.wal.tiers", "is empty", "WAL must go to at least one tier")
        yield from _tiers_without_store(path, server, used)
        yield from _backs_up_into_itself(plan, path, server)
    yield from _names_collide(plan)


def _tiers_without_store(path: str, server: ServerPlan, used: dict[str, str]) -> Iterator[Mistake]:
    """A copy that is asked for and cannot be made would be missed on the bad day only. What every plan has by default
    asks for nothing: `dr plan show` writes it out."""
    usual, given = ReplicationPlan(), server.replication
    asked = [("replication", tier) for tier in ("secondary", "archive") if given.of(tier) != usual.of(tier)]
    asked += [("retention.tiers", tier) for tier in server.retention.tiers]
    for section, tier in asked:
        if tier not in used:
            yield Mistake(
                f"{path}.{section}.{tier}", f"{tier} has no store", f"name one in {path}.storage, or take this out"
            )


def _names_collide(plan: Plan) -> Iterator[Mistake]:
    """Two streams on one slot of one server take each other's WAL."""
    yield from _alike({name: f"databases.{name}" for name in plan.databases}, "servers")
    for (name, server), (other_name, other) in combinations(plan.databases.items(), 2):
        same = (server.connection.host, server.connection.port) == (other.connection.host, other.connection.port)
        if same:
            yield Mistake(
                f"databases.{other_name}.connection",
                f"is the server of databases.{name} ({other.connection.host}:{other.connection.port})",
                "name every PostgreSQL server once: a backup holds all of its databases",
            )


def _alike(paths: dict[str, str], things: str) -> Iterator[Mistake]:
    """Names with their paths. Dagster writes `a-b` and `a_b` as one name."""
    for name, other in combinations(paths, 2):
        if name.replace("-", "_") == other.replace("-", "_"):
            yield Mistake(paths[other], f"differs from {name} only by - and _", f"give the {things} distinct names")


def _backs_up_into_itself(plan: Plan, path: str, server: ServerPlan) -> Iterator[Mistake]:
    """Supabase keeps the index of its objects in the project's own database: lost with it."""
    host = server.connection.host
    for tier, name in server.storage.items():
        store = plan.storage.get(name)
        if not isinstance(store, S3StorePlan) or store.profile != "supabase" or store.endpoint is None:
            continue
        project = (urlsplit(store.endpoint).hostname or "").split(".")[0]
        if host.endswith(_SUPABASE) and project and project in host.split("."):
            yield Mistake(
                f"{path}.storage.{tier}",
                f"{name} is Supabase Storage of the very project that is backed up ({project})",
                "its index of objects lives in that project's database and is lost with it: use another project",
            )


def _retention(plan: Plan) -> Iterator[Mistake]:
    """The last backup must not be due to go before the next one comes."""
    for name, server in plan.databases.items():
        path, between = f"databases.{name}.retention", server.schedule.full.longest_interval
        kept = {path: server.retention.longest}
        kept |= {f"{path}.tiers.{tier}": server.retention.on(tier).longest for tier in server.retention.tiers}
        for where, longest in kept.items():
            if longest < between:
                yield _kept_too_shortly(where, longest, between)
    for name, files in plan.file_storage.items():
        path, between = f"file_storage.{name}", files.schedule.longest_interval
        kept_there = {f"{path}.retention": files.retention, **{f"{path}.tiers.{t}": k for t, k in files.tiers.items()}}
        for where, kept_for in kept_there.items():
            if kept_for < between:
                yield _kept_too_shortly(where, kept_for, between)


def _kept_too_shortly(path: str, kept: timedelta, between: timedelta) -> Mistake:
    return Mistake(
        path,
        f"keeps a backup for {format_duration(kept)} while up to {format_duration(between)} lie between two",
        "keep them longer, or take them more often",
    )


def _files(plan: Plan) -> Iterator[Mistake]:
    for name, files in plan.file_storage.items():
        yield from _tiers(plan, f"file_storage.{name}.storage", dict(files.storage.items()) if files.storage else {})
    yield from _alike({name: f"file_storage.{name}" for name in plan.file_storage}, "file sets")
    yield from file_mistakes(plan)


def _tiers(plan: Plan, path: str, used: dict[str, str]) -> Iterator[Mistake]:
    for tier, store in used.items():
        if store not in plan.storage:
            yield unknown(f"{path}.{tier}", store, "storage", plan.storage)
    if len(set(used.values())) < len(used):
        yield Mistake(path, "two tiers name one store", "every tier needs a store of its own")


def _systems_named_twice(plan: Plan) -> Iterator[Mistake]:
    """`depends_on` names systems without their group."""
    groups: dict[str, str] = {}
    for group, members in plan.systems.items():
        for name in members:
            if groups.setdefault(name, group) != group:
                yield Mistake(
                    f"systems.{group}.{name}",
                    f"is in systems.{groups[name]} too",
                    "give every system a name of its own",
                )


def _systems(plan: Plan) -> Iterator[Mistake]:
    systems = {name: (group, system) for group, members in plan.systems.items() for name, system in members.items()}
    yield from _alike({name: f"systems.{group}.{name}" for name, (group, _) in systems.items()}, "systems")
    for name, (group, system) in systems.items():
        path = f"systems.{group}.{name}"
        if system.server is not None and system.server not in plan.databases:
            yield unknown(f"{path}.server", system.server, "databases", plan.databases)
        for position, needed in enumerate(system.depends_on):
            if needed not in systems:
                yield unknown(f"{path}.depends_on[{position}]", needed, "systems", systems)
            elif systems[needed][1].rto > system.rto:
                yield Mistake(
                    f"{path}.rto",
                    f"promises {format_duration(system.rto)} while {needed}, which it depends on, may take "
                    f"{format_duration(systems[needed][1].rto)}",
                    "promise more time, or less for what it depends on",
                )
    try:
        TopologicalSorter({name: system.depends_on for name, (_, system) in systems.items()}).prepare()
    except CycleError as error:
        yield Mistake("systems", f"depend on each other in a circle: {' → '.join(error.args[1])}", "break the circle")


def _data_classes(plan: Plan) -> Iterator[Mistake]:
    yield from _alike({name: f"data_classes.{name}" for name in plan.data_classes}, "data classes")
    for name, data in plan.data_classes.items():
        path = f"data_classes.{name}"
        if data.server is not None and data.server not in plan.databases:
            yield unknown(f"{path}.server", data.server, "databases", plan.databases)
        elif data.server is not None and data.rpo == timedelta(0) and not plan.databases[data.server].wal.synchronous:
            yield Mistake(
                f"{path}.rpo",
                "promises to lose nothing while WAL is not synchronous",
                f"set databases.{data.server}.wal.synchronous to true, or promise less",
            )
        for position, name_of_set in enumerate(data.file_sets):
            files = plan.file_storage.get(name_of_set)
            if files is None:
                yield unknown(f"{path}.file_sets[{position}]", name_of_set, "file_storage", plan.file_storage)
            elif data.rpo < files.most_lost:
                polled = " (a poll looks at no files without a row)" if files.poll and not files.rows_name_all else ""
                yield Mistake(
                    f"{path}.rpo",
                    f"promises {format_duration(data.rpo)} while file_storage.{name_of_set} is backed up every "
                    f"{format_duration(files.most_lost)}{polled}",
                    "back it up more often, or promise less",
                )
