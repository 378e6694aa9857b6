"""What a validation looks at: a restored copy that runs, and what was told of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from dr_pipelines.checks import CheckResult
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.server import Server
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.source_facts import SourceFacts

KeepPage = Callable[[str, bytes], str]
"""Puts a page of HTML of some kind (`expectations`) beside the evidence, and says where."""


class Subject(Protocol):
    """What most checks need of a copy: a server that can be asked, and what was told of its source."""

    @property
    def facts(self) -> SourceFacts | None: ...
    @property
    def plan(self) -> ValidationPlan: ...
    @property
    def now(self) -> datetime: ...
    @property
    def promises(self) -> Mapping[str, timedelta]: ...
    @property
    def keep_page(self) -> KeepPage | None: ...
    @property
    def source(self) -> str: ...
    def server(self, dbname: str = "postgres") -> Server: ...
    def databases(self) -> list[str]: ...


@dataclass(frozen=True)
class RestoredCopy:
    """A scratch server that stands where a check wants it. `facts` are those of its backup (None: it has none, and
    what is compared with them is not proven); `now` is the time of the validation, `plan` what the plan says of it.
    `promises`: how much of each table (`public.orders`, `sales.*`) may be lost; `keep_page`: None where pages are kept
    nowhere."""

    scratch: ScratchServer
    facts: SourceFacts | None
    plan: ValidationPlan
    now: datetime
    promises: Mapping[str, timedelta] = field(default_factory=dict)
    keep_page: KeepPage | None = None

    @property
    def source(self) -> str:
        """The server that it is a copy of, as the plan calls it."""
        return self.scratch.backup.server

    @property
    def backup(self) -> BackupManifest:
        return self.scratch.backup

    def server(self, dbname: str = "postgres") -> Server:
        return self.scratch.server(dbname)

    def databases(self) -> list[str]:
        """Those that can be connected to, templates left out."""
        rows = self.server().ask(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        )
        return [str(name) for (name,) in rows]


Check = Callable[[RestoredCopy], CheckResult]
Checks = Sequence[Check]
