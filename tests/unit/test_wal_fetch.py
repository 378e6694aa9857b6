"""restore_command itself: a real shell asks a real fetcher. 0: there; 1: proven absence; over 125: anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.postgres.wal_tiers import WalTiers
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive

SIZE = 1 << 20


def _segment(number: int) -> WalSegment:
    return WalSegment(Timeline(1), number, SIZE)


def _archive(repository: Repository) -> WalArchive:
    archive = repository.wal("shop", "7000000000000000000")
    for number in (1, 2, 4):
        archive.put_segment(_segment(number), bytes([number]) * SIZE)
    archive.put_partial(_segment(5), _segment(5).start + 100, b"5" * 100)
    return archive


def _ask(fetcher: WalFetcher, name: str, folder: Path) -> int:
    argv = ["sh", "-c", fetcher.restore_command.replace("%f", name).replace("%p", "got")]
    return Runner().run(Command(argv, cwd=folder, timeout=30), check=False).returncode


def test_each_answer_has_its_exit_code(local_repository: Repository, tmp_path: Path) -> None:
    with WalFetcher(
        WalTiers({"primary": _archive(local_repository)}),
        tmp_path / "wal",
        timeline=Timeline(1),
        replayed_from=Lsn(0),
        segment_size=SIZE,
        os_user=None,
        clock=SystemClock(),
    ) as fetcher:
        for _ in range(5):  # the same file again at once, as PostgreSQL does at the end of recovery
            assert _ask(fetcher, _segment(1).name, tmp_path) == 0
        assert (tmp_path / "got").read_bytes() == b"\1" * SIZE
        assert _ask(fetcher, _segment(3).name, tmp_path) > 125  # a gap
        assert _ask(fetcher, _segment(5).name, tmp_path) == 0  # the newest head
        assert (tmp_path / "got").read_bytes() == b"5" * 100 + bytes(SIZE - 100)
        assert _ask(fetcher, _segment(6).name, tmp_path) == 1
        assert _ask(fetcher, "00000002.history", tmp_path) == 1
        assert fetcher.stored_end() == _segment(5).start + 100
        shutil.rmtree(tmp_path / "wal" / "ready")
        assert _ask(fetcher, _segment(2).name, tmp_path) > 125
        assert _ask(fetcher, _segment(2).name, tmp_path) > 125  # nobody listens any more
        shutil.rmtree(tmp_path / "wal")
        assert _ask(fetcher, _segment(2).name, tmp_path) > 125
