"""The mapping of tablespaces as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.errors import UsageError
from dr_pipelines.postgres.tablespaces import parse_mapping


def test_as_pg_basebackup_takes_it() -> None:
    assert parse_mapping(["/old=/new", "16384=/other"]) == {"/old": Path("/new"), "16384": Path("/other")}
    assert parse_mapping([r"/o\=ld=/n\=ew"]) == {"/o=ld": Path("/n=ew")}
    assert parse_mapping(["/old=here"]) == {"/old": Path.cwd() / "here"}


@pytest.mark.parametrize("text", ["/old", "=/new", "/old=", "/a=/b=/c", ""])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a tablespace mapping"):
        parse_mapping([text])
