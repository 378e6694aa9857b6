"""A server or a file set as Dagster needs to know it: what is taken of it and when, where that lies, where it is
copied, and how this is said. So that assets, schedules and sensors of what has a label are written once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TypeAlias

from dr_pipelines.metadata import FULL_BACKUP, INCREMENTAL_BACKUP, SNAPSHOT, WAL_ARCHIVE
from dr_pipelines.plan import Plan
from dr_pipelines.plan.file_sets import FileSetPlan
from dr_pipelines.plan.model import ServerPlan
from dr_pipelines.plan.tiers import TierPlan
from dr_pipelines.plan.values import Schedule
from dr_pipelines.repository.due import Window
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.snapshot_manifest import Snapshot

Manifest: TypeAlias = BackupManifest | Snapshot
_THINGS = {BackupKind.FULL: FULL_BACKUP, BackupKind.INCREMENTAL: INCREMENTAL_BACKUP}


@dataclass(frozen=True)
class Taken:
    """One kind of what is taken: a partition is the day or hour in which it is launched."""

    thing: str
    schedule: Schedule
    window: Window


@dataclass(frozen=True)
class BackedUp:
    """`name` of the plan; `taken` first what the others stand on; `copies`: (tier, thing) of all that is sent to other
    tiers; `noun`: of what has a label; `lists`: the command that shows it; `sample`: percent of its bytes that checks
    read; `has_references`: whether rows of a database point at its files, and `polled_every` how often these are looked
    at between what is taken."""

    name: str
    storage: TierPlan
    since: date
    taken: tuple[Taken, ...]
    copies: tuple[tuple[str, str], ...]
    noun: str
    lists: str
    sample: int
    tags: Mapping[str, str] = field(default_factory=dict)
    has_references: bool = False
    polled_every: timedelta | None = None

    @property
    def things(self) -> tuple[str, ...]:
        return tuple(taken.thing for taken in self.taken)

    @property
    def first(self) -> str:
        return self.taken[0].thing

    @property
    def tiers(self) -> tuple[str, ...]:
        return tuple(tier for tier, _ in self.storage.items())

    @property
    def copied_to(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tier for tier, _ in self.copies))

    @property
    def is_files(self) -> bool:
        return self.first == SNAPSHOT

    def window(self, thing: str) -> Window | None:
        """None for WAL."""
        return next((taken.window for taken in self.taken if taken.thing == thing), None)


def thing_of(manifest: Manifest) -> str:
    """What was asked for when it was taken."""
    return SNAPSHOT if isinstance(manifest, Snapshot) else _THINGS[manifest.asked_kind]


def of_server(name: str, asked: ServerPlan) -> BackedUp:
    taken = [Taken(FULL_BACKUP, asked.schedule.full, Window.DAY)]
    if asked.schedule.incremental is not None:
        taken.append(Taken(INCREMENTAL_BACKUP, asked.schedule.incremental, Window.HOUR))
    return BackedUp(
        name, asked.storage, asked.since, tuple(taken), tuple(replicas(asked)), "backup", f"dr list {name}",
        asked.validation.sample, {"dr/server": name},
    )  # fmt: skip


def replicas(asked: ServerPlan) -> Iterator[tuple[str, str]]:
    """(tier, thing) of all that the plan sends to other tiers. Incrementals go where everything goes."""
    for tier, _ in asked.storage.items():
        sent = asked.replication.of(tier)
        if sent is None or sent.send == "nothing":
            continue
        yield tier, FULL_BACKUP
        if sent.send == "everything" and asked.schedule.incremental is not None:
            yield tier, INCREMENTAL_BACKUP
        yield tier, WAL_ARCHIVE


def of_file_set(name: str, asked: FileSetPlan) -> BackedUp:
    assert asked.storage is not None
    tiers = [tier for tier, _ in asked.storage.items()]
    sent = [(tier, asked.sent_to(tier)) for tier in tiers]
    copies = tuple((tier, SNAPSHOT) for tier, plan in sent if plan is not None and plan.send != "nothing")
    taken = Taken(SNAPSHOT, asked.schedule, Window.of(asked.schedule.interval))
    return BackedUp(
        name, asked.storage, asked.since, (taken,), copies, "snapshot",
        f"dr files list {name}", asked.sample, {"dr/file_set": name}, bool(asked.references),
        asked.poll,
    )  # fmt: skip


def servers(plan: Plan) -> Iterator[BackedUp]:
    return (of_server(name, asked) for name, asked in plan.databases.items())


def file_sets(plan: Plan) -> Iterator[BackedUp]:
    """Those of which the plan says what is read and where it goes."""
    return (of_file_set(name, asked) for name, asked in plan.file_storage.items() if asked.is_backed_up)


def everything(plan: Plan) -> Iterator[BackedUp]:
    yield from servers(plan)
    yield from file_sets(plan)
