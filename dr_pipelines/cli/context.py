"""What every command needs: the plan, the site, how to speak."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from dr_pipelines.errors import KeyUnusable, UsageError
from dr_pipelines.plan import Plan, default_plan_path, load_plan
from dr_pipelines.plan.values import Share
from dr_pipelines.site import Site


@dataclass
class Settings:
    """The options before the command, as `main` keeps them for its errors."""

    plan_path: Path | None = None
    as_json: bool = False
    debug: bool = False
    command: str = "dr"

    def plan(self) -> Plan:
        return load_plan(self.plan_path or default_plan_path())

    def site(self, identity: Path | None = None) -> Site:
        return Site(self.plan(), identity=_key_in(identity) if identity else None)


def _key_in(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyUnusable(
            f"the identity in {path} cannot be read: {reason}", hint="name a file that `dr key new --out` made."
        ) from None


settings = Settings()


def _set_json(value: bool) -> bool:
    settings.as_json = settings.as_json or value
    return value


Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.", callback=_set_json)]
MaybeServer = Annotated[
    str | None, typer.Argument(metavar="[SERVER]", help="A server of the plan; all of them when left out.")
]
ServerName = Annotated[str, typer.Argument(metavar="SERVER", help="A server of the plan.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A server or a file set of the plan.")]
MaybeName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A server or file set of the plan; all of them when left out.")
]
FileSetName = Annotated[str, typer.Argument(metavar="SET", help="A file set of the plan.")]
TIER = "TIER|STORE"
"""A tier and the name of its store are one: what `dr status` names and what the plan names serve alike."""
TierOption = Annotated[str | None, typer.Option("--tier", metavar=TIER, help="Where the backups are read.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for what is in offline storage, which takes hours, and go on.")
]
Urgent = Annotated[bool, typer.Option("--urgent", help="Ask for that as fast as the service can.")]
IdentityFile = Annotated[
    Path | None, typer.Option("--identity", exists=True, dir_okay=False, help="An age identity instead of the plan's.")
]


def share_of(text: str) -> int:
    """`10%` in percent. Raises `UsageError`."""
    try:
        found: int = TypeAdapter(Share).validate_python(text)
    except ValidationError:
        raise UsageError(f"no share: {text!r}", hint="write it as 10%; 1% is the least.") from None
    return found


def who() -> str:
    """Whoever runs this, for what is put down."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()


__all__ = [
    "FileSetName",
    "TIER",
    "IdentityFile",
    "Json",
    "MaybeName",
    "MaybeServer",
    "Name",
    "ServerName",
    "Settings",
    "TierOption",
    "Urgent",
    "Wait",
    "settings",
    "share_of",
    "who",
]
