"""`dr files poll` and `dr restore --with-files` killed at single requests: nothing is half there, and the next run
ends as an undisturbed one. Invariant 1."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.snapshots import read_snapshots
from tests.support.file_tiers import DOCS, assert_whole_or_invisible
from tests.support.killed import Tiers, serving_each, spread
from tests.support.killed_files import restored
from tests.support.live import Live
from tests.support.shop import Shop

POLL = ("files", "poll", DOCS)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """With a backup, a snapshot, and a file and its row that came since."""
    base = open_folder("dr-test-killed-")
    server = EmbeddedPostgres(base / "pg" / "data", initdb=("--wal-segsize=1",))
    server.start()
    try:
        made = Shop(server, base)
        made.make_table()
        made.add("stays", "as it was")
        made.snapshot()
        live = Live(server, made.site().repository("shop", "primary"), base / "live")
        with live.streaming():
            live.take(BackupKind.FULL)
            made.add("polled", "since then")
        (base / "begun").mkdir()
        shutil.copytree(base / "repository", base / "begun" / "disk")
        shutil.copytree(base / "state", base / "begun" / "state")
        yield made
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def written(shop: Shop) -> Any:
    def plan(stores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {**shop.plan(), "storage": {**stores}, "state_dir": "state"}

    return plan


def files_of(tiers: Tiers, scratch: Path) -> list[dict[bytes, object]]:
    """Of each snapshot: the content of its files."""
    store = tiers.store("disk")
    assert_whole_or_invisible(store)
    found = []
    for one in read_snapshots(store, DOCS).snapshots:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            tree = restored(store, one.label, Path(folder) / "back")
        found.append({path: what[-2] for path, what in tree.items() if isinstance(what[-2], bytes)})
    return found


def test_a_killed_poll_is_ended_by_the_next(shop: Shop, tmp_path: Path) -> None:
    before = {b"store/stays": b"as it was"}
    after = {**before, b"store/polled": b"since then"}
    with serving_each(tmp_path, shop.folder / "begun", ("disk",), cases=3, written=written(shop)) as [first, *others]:
        writes = first.run(*POLL)
        assert files_of(first, tmp_path) == [before, after]
        for write, tiers in zip(spread(len(writes), 2), others, strict=True):
            tiers.kill(*POLL, write=write)
            assert files_of(tiers, tmp_path) in ([before], [before, after])
            tiers.run(*POLL)
            assert files_of(tiers, tmp_path)[-1] == after
            assert not [*tiers.run(*POLL)], "it knows that all is there"


def test_a_killed_restore_of_both_leaves_neither_half(shop: Shop, tmp_path: Path) -> None:
    with serving_each(tmp_path, shop.folder / "begun", ("disk",), cases=1, written=written(shop)) as [tiers]:
        whole = _restore(shop, "whole")
        tiers.run(*whole, code=30)  # the last row's file is in no snapshot
        reads = [*tiers.gate.reads]
        of_files = next(at for at, read in enumerate(reads, 1) if "/files/docs/archives/" in read and read[:3] == "GET")
        for name, read in (("early", len(reads) // 3), ("late", of_files)):
            argv = _restore(shop, name)
            tiers.kill(*argv, read=read)
            data, files = shop.folder / name, shop.folder / f"{name}-files" / DOCS
            assert not files.exists()
            assert data.exists() == (name == "late")
            if data.exists():
                assert (data / "global" / "pg_control").exists()
                tiers.run(*argv, code=30)  # the database is whole: it is not restored over
                assert not files.exists()
                shutil.rmtree(data)
            tiers.run(*argv, code=30)
            assert (files / "store" / "stays").read_text() == "as it was"
            assert not [*shop.folder.glob(f"{name}*partial*"), *files.parent.glob("*partial*")]


def _restore(shop: Shop, name: str) -> tuple[str, ...]:
    return ("restore", "shop", "--to", str(shop.folder / name), "--with-files")
