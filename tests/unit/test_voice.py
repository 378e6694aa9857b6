"""What goes into a pipe: all of a line, as it was written, without what moves a cursor."""

from __future__ import annotations

import pytest

from dr_pipelines.cli.output import print_table
from dr_pipelines.cli.voice import err, out


def test_a_line_is_whole_and_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    out.print(("FAIL", "red"), f"  [bold]{long}", style="yellow")
    assert capsys.readouterr().out == f"FAIL  [bold]{long}\n"


def test_a_name_does_not_write_over_what_is_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    err.print("not read: a\rread: b\b")
    assert capsys.readouterr().err == "not read: aread: b\n"


def test_brackets_in_a_table_are_as_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ["path"], [["a[red]b"]])
    assert "a[red]b" in capsys.readouterr().out
