"""`dr` as a process of its own that needs no second and a half to start: it is forked from one that has imported it all
and has no thread. It has a pid, gets signals and ends with an exit code as the program does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dr_pipelines import cli

_FORKS = multiprocessing.get_context("forkserver")
_PATIENCE = 60.0


class Forked:
    """`dr` with these arguments, running. What it says is added to `log`."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        _FORKS.set_forkserver_preload([__name__, "tests.support.preloaded"])
        self._log = log
        self._process = _FORKS.Process(target=_run, args=([*argv], dict(env), str(log)), daemon=True)
        self._process.start()

    def ended(self, within: float) -> bool:
        """Whether it has, after so many seconds at most."""
        self._process.join(within)
        return self._process.exitcode is not None

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        assert self.code() == -signal.SIGKILL

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)

    def code(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self.ended(_PATIENCE), "it does not end"
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def said(self) -> str:
        return self._log.read_text()


def _run(argv: list[str], env: dict[str, str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    sys.argv = ["dr", *argv]
    cli.main()
