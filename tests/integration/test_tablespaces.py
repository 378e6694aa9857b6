"""Tablespaces are restored to new places beside a live server that still uses the old ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, give, open_folder
from dr_pipelines.errors import RestoreError, TargetInUse, UsageError
from dr_pipelines.postgres.restore import RestoreReport, restore
from dr_pipelines.postgres.restore_plan import UseIncrementals
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from tests.support.live import Live, running


@dataclass(frozen=True)
class Spread:
    """A live server with the tablespaces `fast` and `large`, by their folders; `checksums` of all their files."""

    live: Live
    base: Path
    oids: Mapping[str, str]
    checksums: Mapping[str, str]

    def restore(
        self, target: Path, tablespaces: Mapping[str, Path], use_incrementals: UseIncrementals = "always"
    ) -> RestoreReport:
        request = replace(self.live.request(target, use_incrementals=use_incrementals), tablespaces=tablespaces)
        repositories = [self.live.repository]
        return restore(request, repositories, clock=SystemClock(), runner=Runner(), progress=Silent())


def _checksums(*folders: Path) -> dict[str, str]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def spread(identity: tuple[str, str]) -> Iterator[Spread]:
    base = open_folder("dr-test-spaces-")
    server = EmbeddedPostgres(base / "data", settings={"summarize_wal": "on"}, initdb=("--wal-segsize=1",))
    repository = Repository(LocalStore(base / "store", "primary"), Codec(1, (identity[1],), (identity[0],)), "primary")
    repository.initialise()
    live = Live(server, repository, base / "state")
    try:
        server.start()
        for name in ("fast", "large"):
            (base / name).mkdir()
            give(base / name)
            server.psql(f"CREATE TABLESPACE {name} LOCATION '{base / name}'")
        server.psql("CREATE TABLE orders (id int PRIMARY KEY USING INDEX TABLESPACE fast, note text) TABLESPACE large")
        server.psql("INSERT INTO orders SELECT g, repeat('x', 200) FROM generate_series(1, 3000) g")
        with live.streaming():
            live.take(BackupKind.FULL)
            server.psql("UPDATE orders SET note = 'changed' WHERE id % 100 = 0")
            incremental = live.take(BackupKind.INCREMENTAL)
            assert incremental.parent, incremental.kind_reason
            server.psql("INSERT INTO orders VALUES (3001, 'in WAL only')")
        # The server runs on, and commits that wait for a stream would wait for ever.
        server.psql("ALTER SYSTEM RESET synchronous_standby_names")
        server.psql("SELECT pg_reload_conf()")
        server.psql("CHECKPOINT")
        oids = {
            name: server.psql(f"SELECT oid FROM pg_tablespace WHERE spcname = '{name}'") for name in ("fast", "large")
        }
        yield Spread(live, base, oids, _checksums(base / "fast", base / "large"))
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def _assert_restored(report: RestoreReport, places: Mapping[str, Path]) -> None:
    with running(report.data_dir) as server:
        assert server.psql("SELECT count(*), count(*) FILTER (WHERE note = 'changed') FROM orders") == "3001|30"
        assert server.psql("SET enable_seqscan = off; SELECT note FROM orders WHERE id = 3001") == "in WAL only"
        for name, place in places.items():
            sql = f"SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '{name}'"
            assert server.psql(sql) == str(place)
        server.psql("CREATE TABLE more TABLESPACE fast AS SELECT 1")
    assert all(_checksums(place) for place in places.values())
    assert not any(path.name.startswith(".") for place in places.values() for path in place.iterdir())


def test_a_chain_is_restored_to_new_places_and_the_old_ones_are_not_touched(spread: Spread, folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()  # empty, as a new disk
    asked = {str(spread.base / "fast"): folder / "new" / "fast", spread.oids["large"]: disk}
    report = spread.restore(folder / "restored", asked)
    assert len(report.chain) == 2
    _assert_restored(report, {"fast": folder / "new" / "fast", "large": disk})
    assert _checksums(spread.base / "fast", spread.base / "large") == spread.checksums
    assert spread.live.server.psql("SELECT count(*) FROM orders") == "3001"


def test_without_a_word_they_lie_beside_the_data_directory(spread: Spread, folder: Path) -> None:
    report = spread.restore(folder / "restored", {}, "never")
    assert len(report.chain) == 1
    places = {name: folder / "restored_tablespaces" / oid for name, oid in spread.oids.items()}
    _assert_restored(report, places)
    assert any(str(places["fast"]) in note and str(spread.base / "fast") in note for note in report.notes)
    assert _checksums(spread.base / "fast", spread.base / "large") == spread.checksums


def test_places_in_use_are_refused_and_nothing_is_left(spread: Spread, folder: Path) -> None:
    (folder / "used").mkdir()
    (folder / "used" / "file").write_text("somebody's")
    for oid, place in ((spread.oids["large"], folder / "used"), (spread.oids["fast"], spread.base / "fast")):
        with pytest.raises(TargetInUse, match=f"{place} is not empty"):
            spread.restore(folder / "restored", {oid: place})
        assert [str(path.relative_to(folder)) for path in folder.rglob("*")] == ["used", "used/file"]
    assert _checksums(spread.base / "fast", spread.base / "large") == spread.checksums


def test_mappings_that_make_no_sense_are_refused(spread: Spread, folder: Path) -> None:
    fast, large = spread.oids["fast"], spread.oids["large"]
    for asked, said in (
        ({"/nowhere": folder / "new"}, "no tablespace /nowhere"),
        ({fast: folder / "same", large: folder / "same"}, "lie within each other"),
        ({fast: folder / "restored" / "inside"}, "lie within each other"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            spread.restore(folder / "restored", asked)
        assert caught.value.hint
        assert not list(folder.iterdir())


def test_a_tablespace_made_after_the_backup_is_never_replayed_into_the_live_one(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    """Replay makes it where CREATE TABLESPACE said: refused while that holds files, done when it is empty."""
    server, live = postgres18, Live(postgres18, local_repository, folder / "state")
    late = folder / "late"
    late.mkdir()
    give(late)
    with live.streaming():
        live.take(BackupKind.FULL)
        server.psql(f"CREATE TABLESPACE late LOCATION '{late}'")
        server.psql("CREATE TABLE orders TABLESPACE late AS SELECT generate_series(1, 100) AS id")
        server.psql("CHECKPOINT")
    before = _checksums(late)
    with pytest.raises(RestoreError, match=f"creates a tablespace at {late}"):
        live.restore(folder / "beside")
    assert _checksums(late) == before
    assert not (folder / "beside").exists()
    server.destroy()
    shutil.rmtree(late)
    late.mkdir()
    give(late)
    with running(live.restore(folder / "alone").data_dir) as recovered:
        assert recovered.psql("SELECT count(*) FROM orders") == "100"
