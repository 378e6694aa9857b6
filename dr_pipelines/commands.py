"""The one door to other programs.

Pure functions elsewhere build a `Command`; only this module starts it. Secrets travel in the environment or a
file, never in `argv`, and are masked in every error.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dr_pipelines.errors import CommandFailed


@dataclass(frozen=True)
class Command:
    """A program to run. `env` is added to a minimal environment; `secrets` are added too and masked in messages;
    `user` is an account to run as (only root can change it); `timeout` is in seconds."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    cwd: Path | None = None
    timeout: float | None = None

    def __str__(self) -> str:
        return self.mask(shlex.join(self.argv))

    def mask(self, text: str) -> str:
        for value in self.secrets.values():
            if value:
                text = text.replace(value, "***")
        return text


@dataclass(frozen=True)
class Completed:
    """What a finished program left: its exit code and its output as text."""

    returncode: int
    stdout: str
    stderr: str


class Runner:
    """Runs commands."""

    def run(self, command: Command, *, check: bool = True, stdin: bytes | None = None) -> Completed:
        """Run to the end.

        Raises `CommandFailed` when the program cannot be started, exceeds its timeout or (with `check`) exits
        with another code than 0.
        """
        try:
            done = subprocess.run(
                list(command.argv),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=command.timeout,
                **_popen_arguments(command),
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{command.argv[0]} did not end within {command.timeout} seconds") from error
        except OSError as error:
            raise _cannot_start(command, error) from error
        completed = Completed(
            done.returncode,
            command.mask(done.stdout.decode(errors="replace")),
            command.mask(done.stderr.decode(errors="replace")),
        )
        if check and completed.returncode != 0:
            raise failure_of(command, completed)
        return completed

    def start(
        self,
        command: Command,
        *,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
        descriptors: Sequence[int] = (),
    ) -> Process:
        """Start and return at once; the program gets a session of its own, so signals to us do not reach it. Of our
        open files it gets `descriptors`."""
        try:
            process = subprocess.Popen(
                list(command.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                start_new_session=True,
                pass_fds=descriptors,
                **_popen_arguments(command),
            )
        except OSError as error:
            raise _cannot_start(command, error) from error
        return Process(process)


class Process:
    """A program that runs beside us."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        return self._popen.stderr

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None when it still runs after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._popen.send_signal(number)

    def stop(self, grace: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds."""
        self.signal(signal.SIGTERM)
        code = self.wait(grace)
        if code is None:
            self._popen.kill()
            code = self._popen.wait()
        return code


def failure_of(command: Command, completed: Completed) -> CommandFailed:
    """The error for a program that ended badly, with the last lines of what it said."""
    said = (completed.stderr or completed.stdout).strip().splitlines()[-8:]
    return CommandFailed(
        f"{Path(command.argv[0]).name} ended with exit code {completed.returncode}"
        + (": " + "\n".join(said) if said else ""),
        hint=f"the command was: {command}",
    )


def account_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def runs_as_root() -> bool:
    return os.geteuid() == 0


def _popen_arguments(command: Command) -> dict[str, Any]:
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", **command.env, **command.secrets}
    arguments: dict[str, Any] = {"env": env, "cwd": command.cwd}
    if command.user is not None and runs_as_root():
        account = pwd.getpwnam(command.user)
        arguments |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        env["HOME"] = account.pw_dir
    return arguments


def _cannot_start(command: Command, error: OSError) -> CommandFailed:
    return CommandFailed(
        f"cannot start {command.argv[0]}: {error.strerror or error}",
        hint="install the program, or name its folder in the plan (databases.<server>.bin_dir).",
    )
