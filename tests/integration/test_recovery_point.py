"""A database and its files brought back together, to one instant between two snapshots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import RecallPending, RestoreError, TargetInUse, UsageError
from dr_pipelines.operations import RecoveryPoint, restore_with_files
from dr_pipelines.postgres.restore_plan import LATEST, RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Availability
from tests.support.cold_files import HOURS, ColdShop
from tests.support.forked import dr
from tests.support.live import Live
from tests.support.shop import Shop


@pytest.fixture(scope="module")
def lost() -> Iterator[tuple[Shop, datetime]]:
    """A shop whose server and files are gone, and an instant between its two snapshots."""
    base = open_folder("dr-test-point-")
    server = EmbeddedPostgres(base / "pg" / "data", initdb=("--wal-segsize=1",))
    server.start()
    try:
        shop = Shop(server, base)
        shop.make_table()
        for name in ("stays", "changes", "changes later", "folder/goes later"):
            shop.add(name, f"{name}, as it was")
        (shop.files / "no row").write_text("beside the prefix")
        shop.snapshot()
        live = Live(server, shop.site().repository("shop", "primary"), base / "state")
        with live.streaming():
            live.take(BackupKind.FULL)
            shop.change("changes", "changed before the instant")
            shop.add("new/comes", "written before the instant")
            shop.add("comes and goes", "no snapshot has it")
            at = datetime.fromisoformat(server.psql("SELECT clock_timestamp()").strip())
            shop.change("changes later", "changed after the instant")
            shop.add("too late")
            for name in ("folder/goes later", "comes and goes"):
                (shop.files / "store" / name).unlink()
                server.psql(f"DELETE FROM docs.files WHERE \"Path\" = '{name}'")
        shop.snapshot()
        server.kill()
        shutil.rmtree(shop.files)
        yield shop, at
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def restored(site: Site, shop: Shop, target: RecoveryTarget, to: str) -> RecoveryPoint:
    return restore_with_files(site, RestoreRequest("shop", shop.folder / to, target), Silent())


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_row_has_the_file_of_its_instant(lost: tuple[Shop, datetime]) -> None:
    shop, at = lost
    point = restored(shop.site(), shop, RecoveryTarget("time", at), "then")
    [files] = point.files
    assert files_below(shop.folder / "then-files" / "docs") == {
        "no row": "beside the prefix",
        "store/stays": "stays, as it was",
        "store/changes": "changed before the instant",
        "store/changes later": "changes later, as it was",
        "store/folder/goes later": "folder/goes later, as it was",
        "store/new/comes": "written before the instant",
    }
    assert (files.rows, files.proven, files.missing_named) == (6, 5, ("store/comes and goes",))
    assert not files.is_whole
    assert files.rpo_seconds is not None and 0 < files.rpo_seconds < 600
    assert len(files.used) == 2
    with pytest.raises(RestoreError, match="1 row without its file"):
        point.require_whole()


def test_the_newest_of_both(lost: tuple[Shop, datetime]) -> None:
    shop, _ = lost
    point = restored(shop.site(), shop, LATEST, "newest")
    [files] = point.files
    assert files.is_whole, files
    found = files_below(files.target)
    assert found["store/too late"] == "content"
    assert "store/folder/goes later" not in found
    point.require_whole()


def test_the_command_line(lost: tuple[Shop, datetime]) -> None:
    shop, at = lost
    options = ["--with-files", "--files-to", shop.folder / "here", "--time", at.isoformat()]
    done = dr("--plan", shop.plan_file(), "restore", "shop", "--to", shop.folder / "by-hand", *options)
    assert done.returncode == 30, done
    assert "1 row without its file" in done.stderr and "The database can be used" in done.stderr
    assert "no version: store/comes and goes" in done.stdout and "5 have the file of their digest" in done.stdout
    assert (shop.folder / "here/docs/store/new/comes").read_text() == "written before the instant"


def test_rows_that_cannot_be_read_leave_the_database_and_the_time(lost: tuple[Shop, datetime]) -> None:
    shop, at = lost
    point = restored(shop.site(table="docs.nothing"), shop, RecoveryTarget("time", at), "blind")
    [files] = point.files
    assert point.database.data_dir.exists()
    assert "does not exist" in str(files.trouble) and not files.is_whole
    assert files_below(files.target)["store/changes"] == "changes, as it was"


def test_nothing_is_restored_over_live_files(lost: tuple[Shop, datetime]) -> None:
    shop, _ = lost
    used = shop.folder / "used-files" / "docs"
    used.mkdir(parents=True)
    (used / "mine").write_text("mine")
    with pytest.raises(TargetInUse, match="not empty"):
        restored(shop.site(), shop, LATEST, "used")
    with pytest.raises(TargetInUse, match="live files"):
        request = RestoreRequest("shop", shop.folder / "used")
        restore_with_files(shop.site(), request, Silent(), files_to=shop.files)
    with pytest.raises(UsageError, match="no file set"):
        restore_with_files(shop.site(), request, Silent(), file_sets=["others"])
    assert not (shop.folder / "used").exists()


@pytest.mark.parametrize("wait", [True, False])
def test_files_that_are_offline_are_asked_for_before_the_database_is_restored(
    lost: tuple[Shop, datetime], wait: bool
) -> None:
    shop, at = lost
    cold = ColdShop(shop, at)
    request = RestoreRequest("shop", shop.folder / f"cold-{wait}", RecoveryTarget("time", at), wait=wait)
    if not wait:
        with pytest.raises(RecallPending, match=r"the database is at hand, and its files are not: docs: .* 15 h"):
            restore_with_files(cold.site, request, Silent())
        assert not request.target_dir.exists()
        assert cold.states() == {Availability.ARRIVING}
        cold.hours.advance(timedelta(hours=HOURS))
    point = restore_with_files(cold.site, request, Silent())
    [files] = point.files
    assert files_below(files.target)["store/changes"] == "changed before the instant"
    assert (files.rows, files.proven, len(cold.clock.waited)) == (6, 5, HOURS if wait else 0)
