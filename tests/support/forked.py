"""`dr` as a process of its own that needs no second and a half to start: it is forked from one that has imported it all
and has no thread. It has a pid, gets signals and ends with an exit code as the program does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from dr_pipelines import cli
from dr_pipelines.commands import Completed

DR = Path(sys.executable).with_name("dr")
"""The program itself, for what no fork shows: that it is installed, and a terminal."""
_FORKS = multiprocessing.get_context("forkserver")
_PATIENCE = 120.0


class Forked:
    """`dr` with these arguments, running. `env` is all of its environment, ours unless given."""

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None):
        # Files without a name: they go when nobody has them open.
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        said = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (self._out, self._err)]
        _FORKS.set_forkserver_preload([__name__, "tests.support.preloaded"])
        given = ([str(word) for word in argv], dict(os.environ if env is None else env), cwd or Path.cwd(), said)
        self._process = _FORKS.Process(target=_run, args=given, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has said by now."""
        return _content(self._out)

    @property
    def stderr(self) -> str:
        return _content(self._err)

    def ended(self, within: float = 0) -> bool:
        """Whether it has, after so many seconds at most."""
        self._process.join(within)
        return self._process.exitcode is not None

    def kill(self) -> None:
        """SIGKILL, to it alone; returns when it is gone."""
        self._process.kill()
        self._process.join()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def code(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self.ended(_PATIENCE), "it does not end"
        assert self._process.exitcode is not None
        return self._process.exitcode


def dr(*argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Completed:
    """Run to the end."""
    process = Forked(argv, env, cwd)
    return Completed(process.code(), process.stdout, process.stderr)


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


def _run(argv: list[str], env: dict[str, str], cwd: Path, said: list[str]) -> None:
    for descriptor, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["dr", *argv]
    cli.main()
