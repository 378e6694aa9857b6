"""What a person types after a restore: start the server, look at it, promote it, stop it."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.commands import Command
from dr_pipelines.postgres import configuration, tools
from dr_pipelines.postgres.restore_request import RestoreRequest

LOG = "dr_server.log"
"""In the data directory, which the server's account can write: what the server says when it starts."""


class ServerCommands:
    """The commands for the server that `request` restored."""

    def __init__(self, request: RestoreRequest, bin_dir: Path | None) -> None:
        self._request, self._bin_dir = request, bin_dir

    def start(self, **settings: str) -> Command:
        request = self._request
        return tools.pg_ctl_start(
            request.target_dir, request.target_dir / LOG, settings, bin_dir=self._bin_dir, user=request.os_user
        )

    def next(self) -> dict[str, str]:
        """Each by what it does, in the order in which they are wanted."""
        match self._request.action:
            case "promote":
                found = {"look at it": self._psql()}
            case "pause":
                found = {"look at it, read-only": self._psql(), "promote it": self._pg_ctl("promote")}
            case "shutdown":
                return {
                    "promote it": tools.as_typed(self.start(recovery_target_action="promote")),
                    "look at it first, read-only": tools.as_typed(self.start(recovery_target_action="pause")),
                }
        if self._request.start:
            return {**found, "stop it": self._pg_ctl("stop")}
        return {"start it": tools.as_typed(self.start()), **found}

    def end_of_log(self) -> str:
        path = self._request.target_dir / LOG
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-8:])

    def _pg_ctl(self, verb: str) -> str:
        data_dir, user = self._request.target_dir, self._request.os_user
        return tools.as_typed(tools.pg_ctl(data_dir, verb, bin_dir=self._bin_dir, user=user))

    def _psql(self) -> str:
        """Over the socket, as the server's account: pg_hba.conf lets that one in as a rule."""
        found = configuration.read(self._request.target_dir)
        socket = found.get("unix_socket_directories", "/tmp").split(",")[0].strip()
        where = ["-h", socket, "-p", found.get("port", "5432"), "-U", self._request.superuser, "-d", "postgres"]
        argv = [tools.program("psql", self._bin_dir), *where]
        return tools.as_typed(Command(argv, user=self._request.os_user))
