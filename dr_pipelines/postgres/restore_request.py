"""What a person asks of a restore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dr_pipelines.errors import UsageError
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.postgres.restore_plan import LATEST, RecoveryTarget, UseIncrementals
from dr_pipelines.postgres.server import Server

RecoveryAction = Literal["promote", "pause", "shutdown"]
"""What happens at the target, in PostgreSQL's words (`recovery_target_action`)."""


@dataclass(frozen=True)
class RestoreRequest:
    """`tablespaces` maps an old location or an oid (as text) to a new directory; the others go to
    `<target_dir>_tablespaces/<oid>`. `os_user` is the account that the server runs as when we are root. Without
    `bin_dir`, `find_bin_dir` is asked with the major version of the backup; None takes the programs from PATH.
    A backup whose newest validation failed is left out, unless it is the one that `label` names or with `even_failed`.
    `spool` is the folder in which this host's stream keeps what it received; its WAL counts like a tier's.
    `terms` are those of each tier's store. What is offline is recalled (`urgent`: as fast as the service can), and with
    `wait` the restore goes on when it is there; otherwise it ends.
    `before_writing` is called when all that can be foreseen is at hand; what it raises ends the restore.
    `at_target` is called with the server once it stands at its target, before it gets its name; it raises nothing.
    `port` and `socket_dir` are where the restored server listens, `start` leaves it running there.
    Raises `UsageError` for what makes no sense together."""

    server: str
    target_dir: Path
    target: RecoveryTarget = LATEST
    label: str | None = None
    even_failed: bool = False
    use_incrementals: UseIncrementals = "auto"
    action: RecoveryAction = "promote"
    start: bool = False
    port: int | None = None
    socket_dir: Path | None = None
    bin_dir: Path | None = None
    find_bin_dir: Callable[[int], Path | None] = field(default=lambda major: None, repr=False)
    os_user: str | None = None
    superuser: str = "postgres"
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    spool: Path | None = None
    terms: Mapping[str, StorageTerms] = field(default_factory=dict)
    wait: bool = False
    urgent: bool = False
    before_writing: Callable[[], None] | None = field(default=None, repr=False)
    at_target: Callable[[Server], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.action != "promote" and self.target.kind == "latest":
            raise UsageError(
                f"a recovery to latest ends with the WAL: it has no target to {self.action} at",
                hint="name one with --time, --lsn, --xid, --name or --immediate; `dr restore --preview` shows the end.",
            )
        if self.action == "shutdown" and self.start:
            raise UsageError(
                "a server with the action shutdown ends as soon as it is started",
                hint="take --action pause with --start to look at it, or --action promote.",
            )

    def listening(self) -> dict[str, str]:
        """Where the restored server listens, as settings; what is not asked for stays as it was."""
        asked = {"port": self.port, "unix_socket_directories": self.socket_dir}
        return {name: str(value) for name, value in asked.items() if value is not None}
