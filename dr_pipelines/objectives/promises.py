"""Every line of the plan's RPO and RTO tables, and which servers must be looked at to judge it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from dr_pipelines.plan import Plan
from dr_pipelines.plan.model import SystemPlan


@dataclass(frozen=True)
class Promise:
    """`table` is the plan's, `path` where it stands there; `server` is the one that the line names itself, `servers`
    are all that it rests on: for a system also those of what it depends on."""

    table: Literal["rpo", "rto"]
    name: str
    path: str
    promised: timedelta
    server: str | None = None
    servers: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    file_sets: tuple[str, ...] = ()

    @property
    def check(self) -> str:
        """The check's name, as Dagster takes it."""
        return f"{self.table}_of_{self.name.replace('-', '_')}_is_met"

    def home(self, plan: Plan) -> str | None:
        """The server with which it is shown where each line is shown once. What names no server is shown with the
        plan's first: a promise that nobody can measure must be seen somewhere."""
        return self.server or next(iter(self.servers or plan.databases), None)


def promises(plan: Plan, server: str | None = None) -> list[Promise]:
    """In the plan's order; of one server, those that rest on it."""
    found = [*_losses(plan), *_times(plan)]
    return [promise for promise in found if server is None or server in promise.servers]


def systems_of(plan: Plan) -> dict[str, SystemPlan]:
    """By name, without their groups: names are unique over the groups."""
    return {name: system for members in plan.systems.values() for name, system in members.items()}


def _losses(plan: Plan) -> Iterator[Promise]:
    for name, data in plan.data_classes.items():
        servers = () if data.server is None else (data.server,)
        path = f"data_classes.{name}"
        yield Promise("rpo", name, path, data.rpo, data.server, servers, file_sets=data.file_sets)


def _times(plan: Plan) -> Iterator[Promise]:
    systems = systems_of(plan)
    for group, members in plan.systems.items():
        for name, system in members.items():
            needed = {systems[one].server for one in (name, *all_needed(systems, name))}
            servers = tuple(server for server in plan.databases if server in needed)
            path = f"systems.{group}.{name}"
            yield Promise("rto", name, path, system.rto, system.server, servers, system.depends_on)


def all_needed(systems: Mapping[str, SystemPlan], name: str) -> list[str]:
    """What a system depends on, directly or not; each once, the nearest first."""
    found: dict[str, None] = {}
    waiting = [*systems[name].depends_on]
    while waiting:
        needed = waiting.pop(0)
        if needed not in found:
            found[needed] = None
            waiting += systems[needed].depends_on
    return list(found)
