"""Where the plan contradicts itself about files. Pure; each mistake names its YAML path."""

from __future__ import annotations

from collections.abc import Iterator

from dr_pipelines.plan.file_sets import BucketSource, DirectorySource, FileSetPlan
from dr_pipelines.plan.mistake import Mistake, unknown
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.stores import LocalStorePlan
from dr_pipelines.plan.values import format_duration


def file_mistakes(plan: Plan) -> Iterator[Mistake]:
    for name, files in plan.file_storage.items():
        path = f"file_storage.{name}"
        if (files.source is None) != (files.storage is None):
            there, lacks = ("storage", "source") if files.source is None else ("source", "storage")
            yield Mistake(f"{path}.{there}", f"is there without {lacks}", f"name {path}.{lacks} too, or neither")
        yield from _source(plan, path, files)
        yield from _tiers_without_store(path, files)
        yield from _references(plan, path, files)
        if name in plan.databases:
            yield Mistake(path, f"is called as databases.{name} is", "give servers and file sets names of their own")


def _source(plan: Plan, path: str, files: FileSetPlan) -> Iterator[Mistake]:
    if isinstance(files.source, BucketSource):
        store = plan.storage.get(files.source.store)
        if store is None:
            yield unknown(f"{path}.source.store", files.source.store, "storage", plan.storage)
        elif isinstance(store, LocalStorePlan):
            yield Mistake(f"{path}.source.store", "is a directory", "write `source: {type: directory, path: …}`")
        elif files.storage is not None and files.source.store in dict(files.storage.items()).values():
            yield Mistake(f"{path}.source.store", "is where the set is backed up to", "back it up to another store")
    if isinstance(files.source, DirectorySource) and files.storage is not None:
        for tier, name in files.storage.items():
            store = plan.storage.get(name)
            inside = isinstance(store, LocalStorePlan) and store.path.resolve().is_relative_to(
                files.source.path.resolve()
            )
            if inside:
                yield Mistake(f"{path}.storage.{tier}", f"{name} lies inside of the source", "back up to another place")


def _tiers_without_store(path: str, files: FileSetPlan) -> Iterator[Mistake]:
    used = dict(files.storage.items()) if files.storage is not None else {}
    for section, tiers in (("replication", files.replication), ("tiers", files.tiers)):
        for tier in tiers:
            if tier not in used:
                yield Mistake(
                    f"{path}.{section}.{tier}", f"{tier} has no store", f"name one in {path}.storage, or take this out"
                )


def _references(plan: Plan, path: str, files: FileSetPlan) -> Iterator[Mistake]:
    for name, reference in files.references.items():
        if reference.server not in plan.databases:
            yield unknown(f"{path}.references.{name}.server", reference.server, "databases", plan.databases)
        if reference.supabase is not None and isinstance(files.source, DirectorySource):
            yield Mistake(
                f"{path}.references.{name}.supabase", "is of a bucket, and the source is a directory", "name its table"
            )
    longest = files.schedule.longest_interval
    if files.poll is not None and files.keep_polls < longest:
        yield Mistake(
            f"{path}.keep_polls",
            f"polls would go before the next snapshot is there, which may take {format_duration(longest)}",
            f"keep them for {format_duration(longest)} at least",
        )
    if files.poll is not None and not files.references:
        yield Mistake(f"{path}.poll", "there are no rows to look at", f"name them in {path}.references")
