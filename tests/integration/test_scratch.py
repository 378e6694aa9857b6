"""A scratch server goes forward through the WAL, is read at each position, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.errors import UsageError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.support.live import Live


def rows(copy: ScratchServer) -> int:
    return int(copy.server().ask("SELECT count(*) FROM orders")[0][0])


def test_forward_in_steps_and_to_the_end(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    live = Live(postgres18, local_repository, folder / "state")
    with live.streaming():
        postgres18.psql("CREATE TABLE orders (id int PRIMARY KEY)")
        full = live.take(BackupKind.FULL)
        positions: list[Lsn] = []
        for number in range(1, 4):
            postgres18.psql(f"INSERT INTO orders VALUES ({number})")
            positions.append(postgres18.server.flush_lsn())
        postgres18.psql("CREATE TABLE later ()")
    with live.scratch(folder / "copy", full.label) as copy:
        for number, position in enumerate(positions, start=1):
            # Before the record that begins there: what is committed by then, and no more.
            copy.replay_to(RecoveryTarget("lsn", position, inclusive=False))
            assert rows(copy) == number
        with pytest.raises(UsageError, match="lies before that"):
            copy.replay_to(RecoveryTarget("lsn", positions[0]))
        assert copy.server().in_recovery()
        end = copy.replay_to_end()
        assert (rows(copy), copy.server().in_recovery()) == (3, False)
        assert end.reached >= positions[-1]
        assert {"plan", "fetch", "write", "start", "replay"} <= set(copy.phases)
    assert not [*folder.glob("copy*")]
