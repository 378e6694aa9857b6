"""The one door to other programs."""

from __future__ import annotations

import signal
import sys

import pytest

from dr_pipelines.commands import Command, Runner
from dr_pipelines.errors import CommandFailed


def _python(code: str, **more: object) -> Command:
    return Command([sys.executable, "-c", code], **more)  # type: ignore[arg-type]


def test_output_and_exit_code_come_back() -> None:
    done = Runner().run(_python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(CommandFailed, match="exit code 1: no luck"):
        Runner().run(_python("import sys; sys.exit('no luck')"))


def test_a_secret_reaches_the_program_and_no_message() -> None:
    command = _python("import os, sys; sys.exit('password is ' + os.environ['PW'])", secrets={"PW": "hunter2"})
    with pytest.raises(CommandFailed) as failed:
        Runner().run(command)
    assert "password is ***" in str(failed.value)
    assert "hunter2" not in f"{failed.value}{command!r}{command}"


def test_a_missing_program_is_named_with_a_hint() -> None:
    with pytest.raises(CommandFailed, match="cannot start no-such-program") as failed:
        Runner().run(Command(["no-such-program"]))
    assert failed.value.hint


def test_a_timeout_ends_the_program() -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        Runner().run(_python("import signal; signal.pause()", timeout=0.2))


def test_a_started_program_is_stopped() -> None:
    process = Runner().start(_python("import signal; signal.pause()"))
    assert process.returncode is None
    assert process.stop(grace=5) == -signal.SIGTERM


def test_only_a_little_of_our_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DR_SECRET_OF_OURS", "hunter2")
    assert "hunter2" not in Runner().run(_python("import os; print(dict(os.environ))")).stdout
