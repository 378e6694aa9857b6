"""What a validation looks at: a restored copy that runs, and what was told of its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.checks import CheckResult
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.server import Server
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.source_facts import SourceFacts


@dataclass(frozen=True)
class RestoredCopy:
    """A scratch server that stands where a check wants it. `facts` are those of its backup (None: it has none, and
    what is compared with them is not proven); `now` is the time of the validation, `plan` what the plan says of it."""

    scratch: ScratchServer
    facts: SourceFacts | None
    plan: ValidationPlan
    now: datetime

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
