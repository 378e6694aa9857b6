"""Where what the plan asks of a store contradicts what such a store can do: locks, storage classes, prices. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

from dr_pipelines.plan.classes import StorageClass, classes_of, storage_class
from dr_pipelines.plan.mistake import Mistake
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan
from dr_pipelines.plan.values import format_duration

Rented = S3StorePlan | AzureStorePlan


def store_mistakes(plan: Plan) -> Iterator[Mistake]:
    for name, store in plan.storage.items():
        if not isinstance(store, Rented):
            continue
        path = f"storage.{name}"
        if isinstance(store, S3StorePlan) and store.profile == "supabase":
            yield from _beyond_supabase(path, store)
            continue
        yield from _unknown_classes(path, store)
        yield from _order(path, store)
        yield from _offline_for_recovery(plan, name, store)


def _beyond_supabase(path: str, store: S3StorePlan) -> Iterator[Mistake]:
    """It takes such parameters, and ignores them without a word."""
    if store.lock is not None:
        yield Mistake(
            f"{path}.lock", "Supabase Storage cannot lock objects", "take it out, and lock the objects of another tier"
        )
    if store.classes:
        yield Mistake(f"{path}.classes", "Supabase Storage has no storage classes", "take it out")


def _unknown_classes(path: str, store: Rented) -> Iterator[Mistake]:
    named = [(f"classes[{position}].name", aged.name) for position, aged in enumerate(store.classes)]
    named += [(f"prices.{name}", name) for name in store.prices]
    there = ", ".join(found.name for found in classes_of(store.type))
    service = {"s3": "S3", "azure": "Azure Blob Storage"}[store.type]
    for where, name in named:
        if storage_class(store.type, name) is None:
            yield Mistake(f"{path}.{where}", f"{name!r} is no storage class of {service}", f"there is: {there}")


def _order(path: str, store: Rented) -> Iterator[Mistake]:
    """Objects only grow older, and only colder."""
    coldness = [found.name for found in classes_of(store.type)]
    for position, (former, latter) in enumerate(pairwise(store.classes), 1):
        if latter.after <= former.after:
            yield Mistake(
                f"{path}.classes[{position}].after",
                f"{latter.name} comes after {format_duration(latter.after)}, "
                f"{former.name} before it after {format_duration(former.after)}",
                "write the classes in order of age, the youngest first",
            )
        elif {former.name, latter.name} <= {*coldness} and coldness.index(former.name) >= coldness.index(latter.name):
            yield Mistake(
                f"{path}.classes[{position}].name",
                f"{latter.name} comes after {former.name}, which is not warmer",
                f"the older, the colder: {', '.join(coldness)}",
            )


def _offline_for_recovery(plan: Plan, name: str, store: Rented) -> Iterator[Mistake]:
    """What any instant of the recovery window needs, the full before it included, must be at hand, but on archives. Of
    files the primary must have what a snapshot has just put; what is older of them `dr store age` keeps at hand there.
    """
    offline = [
        (position, aged, facts)
        for position, aged in enumerate(store.classes)
        if (facts := storage_class(store.type, aged.name)) is not None and facts.offline
    ]
    tiers = [
        (f"{server}'s {tier}", asked.retention.on(tier).recovery_window + asked.schedule.full.longest_interval)
        for server, asked in plan.databases.items()
        for tier, store in asked.storage.items()
        if store == name and tier != "archive"
    ]
    for whose, needed in tiers:
        for position, aged, facts in offline:
            if aged.after < needed:
                yield _hours_away(f"storage.{name}.classes[{position}]", whose, aged.after, needed, facts)
    for file_set, files in plan.file_storage.items():
        if files.storage is None or files.storage.primary != name:
            continue
        for position, aged, facts in offline:
            if not aged.after:
                yield Mistake(
                    f"storage.{name}.classes[{position}]",
                    f"{facts.name} is offline: all that restoring {file_set} from its primary needs is at once "
                    f"{facts.hours:g} hours away",
                    "give it an after, or keep this class for the archive",
                )


def _hours_away(path: str, whose: str, after: timedelta, needed: timedelta, facts: StorageClass) -> Mistake:
    return Mistake(
        path,
        f"{facts.name} is offline: after {format_duration(after)}, bytes that recovering from {whose} needs are "
        f"{facts.hours:g} hours away",
        f"set after to {format_duration(needed)} or more (recovery window and the full before it), or keep this class "
        "for the archive",
    )
