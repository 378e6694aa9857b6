"""Every recovery target on one backed-up PostgreSQL 18: what was committed just before is there, what came
after is not."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, free_port, open_folder
from dr_pipelines.errors import (
    CommandFailed,
    DamagedWal,
    IntegrityError,
    KeyUnusable,
    RestoreError,
    StoreUnavailable,
    TargetInUse,
    TargetUnreachable,
    UsageError,
    WalGap,
)
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import configuration
from dr_pipelines.postgres.neutralise import NOTES_FILE
from dr_pipelines.postgres.restore import RestoreReport, restore
from dr_pipelines.postgres.restore_plan import LATEST, RecoveryTarget
from dr_pipelines.postgres.restore_preview import RestorePreview, preview
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import ObjectInfo
from dr_pipelines.storage.local import LocalStore
from tests.support.faulty_store import FaultyStore
from tests.support.live import Live, running


@dataclass
class Past:
    """A server's history: row n was committed by transaction `xids[n]`, and all was well at `moments[n]` after it."""

    live: Live
    base: Path
    xids: dict[int, str]
    moments: dict[int, datetime]
    ends: dict[int, Lsn]

    def rows(self, name: str, target: RecoveryTarget) -> list[int]:
        report = self.restore(name, target)
        with running(report.data_dir) as server:
            return [int(row) for row in server.psql("SELECT id FROM orders ORDER BY id").split()]

    def restore(self, name: str, target: RecoveryTarget, *repositories: Repository, **options: Any) -> RestoreReport:
        return restore(
            replace(self.live.request(self.base / name, target), **options),
            repositories or [self.live.repository],
            clock=SystemClock(),
            runner=Runner(),
            progress=Silent(),
        )

    @contextmanager
    def saying(self, backup: BackupManifest, **changes: Any) -> Iterator[None]:
        """The backup's manifest says something else meanwhile."""
        path = self.base / "store" / backup.layout.manifest
        there = path.read_bytes()
        path.write_bytes(encode(backup.model_copy(update=changes)))
        try:
            yield
        finally:
            path.write_bytes(there)

    @contextmanager
    def flipped(self, key: str) -> Iterator[None]:
        """A bit of the object is wrong meanwhile."""
        path = self.base / "store" / key
        there = path.read_bytes()
        path.write_bytes(bytes([*there[:-1], there[-1] ^ 1]))
        try:
            yield
        finally:
            path.write_bytes(there)

    def preview(self, name: str, target: RecoveryTarget, *repositories: Repository) -> RestorePreview:
        request = self.live.request(self.base / name, target)
        return preview(request, repositories or [self.live.repository], runner=Runner(), progress=Silent())


def typed(command: str) -> str:
    """What a person at a terminal gets for a command of the report."""
    return Runner().run(Command(["sh", "-c", command], timeout=120)).stdout.strip()


def asked(report: RestoreReport, what: str, question: str) -> str:
    return typed(f"{report.commands[what]} -XAtc {shlex.quote(question)}")


@pytest.fixture(scope="module")
def past(identity: tuple[str, str]) -> Iterator[Past]:
    base = open_folder("dr-test-past-")
    small = {"shared_buffers": "8MB", "fsync": "off"}
    server = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",), settings=small)
    server.start()
    for name in ("template0", "template1"):  # two thirds of the files of an empty server
        server.psql(f"ALTER DATABASE {name} IS_TEMPLATE false")
        server.psql(f"DROP DATABASE {name}")
    repository = Repository(LocalStore(base / "store", "primary"), Codec(1, (identity[1],), (identity[0],)), "primary")
    repository.initialise()
    live = Live(server, repository, base / "state")
    past = Past(live, base, {}, {}, {})
    try:
        server.psql("CREATE TABLE orders (id int PRIMARY KEY)")
        with live.streaming():
            # What the restored server must not obey; the running one reads it at its next start only.
            with (server.data_dir / "postgresql.conf").open("a") as conf:
                conf.write(f"data_directory = '{server.data_dir}'\nhba_file = '/nowhere/pg_hba.conf'\nssl = on\n")
                conf.write("shared_preload_libraries = 'pg_cron, not_here'  # jobs\ninclude_dir '/nowhere/conf.d'\n")
                conf.write("listen_addresses = '203.0.113.1'\nlog_directory = '/nowhere/log'\n")
            live.take(BackupKind.FULL)
            for number in range(1, 6):
                past.xids[number] = server.psql(f"INSERT INTO orders VALUES ({number}) RETURNING pg_current_xact_id()")
                past.ends[number] = Lsn.parse(server.psql("SELECT pg_current_wal_insert_lsn()"))
                past.moments[number] = datetime.fromisoformat(server.psql("SELECT clock_timestamp()"))
                server.psql(f"SELECT pg_create_restore_point('after_{number}')")
                if number in (1, 5):
                    server.psql("SELECT pg_create_restore_point('twice')")
                if number == 2:
                    server.psql("SELECT pg_switch_wal()")
                if number == 3:
                    server.psql("SELECT pg_logical_emit_message(false, 'dr', repeat('x', 3000000))")
                if number == 4:
                    live.take(BackupKind.FULL)
            server.psql("CREATE TABLE done ()")  # a restore point is written out by the next commit
            server.kill()
        yield past
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def test_time(past: Past) -> None:
    assert past.rows("time", RecoveryTarget("time", past.moments[3])) == [1, 2, 3]


def test_lsn_and_a_server_that_waits_there_to_be_looked_at(past: Past) -> None:
    target = RecoveryTarget("lsn", past.ends[2])
    report = past.restore("lsn", target, action="pause", start=True, port=free_port(), socket_dir=past.base)
    try:
        look = "look at it, read-only"
        assert asked(report, look, "SELECT pg_is_in_recovery(), max(id) FROM orders") == "t|2"
        with pytest.raises(CommandFailed, match="read-only"):
            asked(report, look, "DELETE FROM orders")
        assert asked(report, look, "SELECT pg_last_wal_replay_lsn()") == str(report.reached_lsn)
        assert report.timeline == Timeline(1)
        typed(report.commands["promote it"])
        assert asked(report, look, "SELECT pg_is_in_recovery(), max(id) FROM orders") == "f|2"
    finally:
        typed(report.commands["stop it"])
    assert not (report.data_dir / "postmaster.pid").exists()


@pytest.mark.parametrize(("inclusive", "rows"), [(True, [1, 2, 3, 4]), (False, [1, 2, 3])])
def test_xid(past: Past, inclusive: bool, rows: list[int]) -> None:
    assert past.rows(f"xid-{inclusive}", RecoveryTarget("xid", past.xids[4], inclusive)) == rows


def test_named_restore_point_and_a_server_that_is_not_promoted_until_told(past: Past) -> None:
    target = RecoveryTarget("name", "after_4")
    report = past.restore("name", target, action="shutdown", port=free_port(), socket_dir=past.base)
    stop = f"{report.commands['promote it'].split(' -w ')[0]} stop"
    psql = f"{bin_dir()}/psql -h {past.base} -p {configuration.read(report.data_dir)['port']} -U postgres -XAtc "
    question = shlex.quote("SELECT pg_is_in_recovery(), max(id) FROM orders")
    for command, answer in (("look at it first, read-only", "t|4"), ("promote it", "f|4")):
        typed(report.commands[command])
        assert typed(psql + question) == answer
        typed(stop)


def test_immediate_and_started(past: Past) -> None:
    target, port = RecoveryTarget("immediate"), free_port()
    report = past.restore("immediate", target, start=True, port=port, socket_dir=past.base)
    try:
        assert asked(report, "look at it", "SELECT pg_is_in_recovery(), count(*) FROM orders") == "f|4"
        # Beside it, over what a killed restore left; the port is taken.
        left = past.base / "beside.partial" / "base"
        left.mkdir(parents=True)
        (past.base / "beside.wal").mkdir()
        with pytest.raises(RestoreError, match=r"could not be started[^$]*in use") as caught:
            past.restore("beside", target, start=True, port=port, socket_dir=past.base)
        assert str(past.base / "beside") in str(caught.value.hint)
        assert (past.base / "beside" / "PG_VERSION").exists()
        assert {path.name for path in past.base.glob("beside*")} == {"beside"}
    finally:
        typed(report.commands["stop it"])


@pytest.mark.parametrize("options", [{"action": "pause"}, {"action": "shutdown"}], ids=str)
def test_latest_is_no_target_to_stay_at(past: Past, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="latest"):
        past.restore("stays", LATEST, **options)
    with pytest.raises(UsageError, match="ends as soon as"):
        past.restore("stays", RecoveryTarget("immediate"), action="shutdown", start=True)


def test_latest_from_the_second_tier_and_what_the_server_must_not_do(past: Past) -> None:
    good = past.live.repository
    down = Repository(FaultyStore(good.store, fail_at=1, stays_down=True), good.codec, "primary")
    report = past.restore("latest", LATEST, down, Repository(good.store, good.codec, "secondary"))
    assert report.tier == "secondary"
    assert any("primary cannot be used" in note for note in report.notes)
    data_dir = report.data_dir
    with running(data_dir) as server:
        assert server.psql("SELECT max(id) FROM orders") == "5"
        assert server.psql("SHOW data_directory") == str(data_dir)
        assert server.psql("SHOW shared_preload_libraries") == ""
        assert server.psql("SHOW ssl") == "off"
        assert server.psql("SHOW listen_addresses") == "localhost"
        assert server.psql("SHOW cron.launch_active_jobs") == "off"
        assert server.psql("SHOW restore_command") == ""
    assert "data_directory" in (data_dir / "postgresql.conf.original").read_text()
    assert "archive_mode = 'off'" in (data_dir / NOTES_FILE).read_text()
    assert any("not_here" in note for note in report.notes)
    assert str(data_dir) in report.commands["start it"]


def test_of_several_restore_points_of_one_name_the_newest(past: Past) -> None:
    assert past.rows("twice", RecoveryTarget("name", "twice")) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("target", "said", "hint"),
    [
        (RecoveryTarget("xid", "999999"), "999999 neither commits nor", "pg_current_xact_id"),
        (RecoveryTarget("name", "never_made"), "no restore point 'never_made'", "twice, after_5, after_4"),
    ],
    ids=str,
)
def test_a_target_that_is_nowhere_is_refused_before_anything_is_written(
    past: Past, target: RecoveryTarget, said: str, hint: str
) -> None:
    for attempt in (past.restore, past.preview):
        with pytest.raises(TargetUnreachable, match=said) as caught:
            attempt("never", target)
        assert hint in str(caught.value.hint)
    assert not list(past.base.glob("never*"))


class _Partly(FaultyStore):
    """A tier that holds only what `holds` says of its keys."""

    holds: Callable[[str], bool]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (found for found in super().list(prefix) if self.holds(found.key))


def test_latest_reaches_wal_that_only_a_tier_without_backups_holds(past: Past) -> None:
    good = past.live.repository
    newest = [found.segment.name for found in good.wal("shop", good.backups("shop")[0].system_id).segments(Timeline(1))]
    behind, wal_only = _Partly(good.store), _Partly(good.store)
    behind.holds = lambda key: ".partial" not in key and newest[-1] not in key
    wal_only.holds = lambda key: "/wal/" in key
    tiers = [Repository(behind, good.codec, "primary"), Repository(wal_only, good.codec, "secondary")]
    seen = past.preview("tiers", LATEST, *tiers)
    assert seen.reachable_end == past.preview("tiers", LATEST).reachable_end
    report = past.restore("tiers", LATEST, *tiers)
    for notes in (seen.notes, report.notes):
        assert any("on primary" in note and "comes from secondary" in note for note in notes), notes
    with running(report.data_dir) as server:
        assert server.psql("SELECT max(id) FROM orders") == "5"


def test_a_backup_that_the_clock_puts_before_the_target_gives_way_to_the_one_that_is(past: Past) -> None:
    first, late = past.live.repository.backups("shop")
    target = RecoveryTarget("time", past.moments[3])
    # What is provisional is tried last.
    with past.saying(late, finished_at=past.moments[1]), past.saying(first, provisional="for this test"):
        report = past.restore("skewed", target)
        assert any(late.label in note and "too late" in note for note in report.notes)
        with pytest.raises(TargetUnreachable, match="before the point where any backup"):
            past.restore("alone", target, label=late.label)
        assert past.preview("skewed", target).chain == report.chain == (first.label,)
    with running(report.data_dir) as server:
        assert server.psql("SELECT max(id) FROM orders") == "3"


def test_wal_that_is_damaged_on_every_tier_gives_way_to_a_backup_after_it(past: Past) -> None:
    first, late = past.live.repository.backups("shop")
    stored = past.live.repository.wal("shop", first.system_id).segments(Timeline(1))
    middle = next(found for found in stored if found.segment.start > first.stop_lsn)
    with past.saying(late, provisional="for this test"), past.flipped(middle.stored.key):
        report = past.restore("damaged", LATEST)
        with pytest.raises(DamagedWal, match="does not match") as caught:
            past.restore("needs", LATEST, label=first.label)
    assert report.chain == (late.label,)
    assert any(f"{first.label} on primary cannot be used: WAL up to" in note for note in report.notes)
    assert f"--lsn {middle.segment.start}" in str(caught.value.hint)
    assert not list(past.base.glob("needs*"))
    with running(report.data_dir) as server:
        assert server.psql("SELECT max(id) FROM orders") == "5"


def test_a_time_after_the_newest_transaction_is_refused_before_anything_is_written(past: Past) -> None:
    later = RecoveryTarget("time", past.moments[5] + timedelta(days=1))
    for attempt in (past.restore, past.preview):
        with pytest.raises(TargetUnreachable, match="after the newest transaction") as caught:
            attempt("later", later)
        assert "without a target" in str(caught.value.hint)
    assert not list(past.base.glob("later*"))


def test_timeline_1_although_2_exists(past: Past) -> None:
    archive = past.live.repository.wal("shop", past.live.repository.backups("shop")[0].system_id)
    segment = archive.segments(Timeline(1))[-1].segment
    history = f"1\t{past.ends[3]}\tno recovery target specified\n".encode()
    archive.put_segment(replace(segment, timeline=Timeline(2)), archive.read_segment(segment))
    path = next(Path(past.base / "store").glob(f"**/{segment.name.replace('00000001', '00000002', 1)}*"))
    try:
        # Without its history file, timeline 2 is taken all the same and never given to another.
        with pytest.raises(WalGap, match="history file"):
            past.restore("lost-history", LATEST)
        assert past.restore("first", RecoveryTarget(timeline=Timeline(1))).timeline == Timeline(3)
        archive.put_history(Timeline(2), history)
        assert past.rows("first-again", RecoveryTarget(timeline=Timeline(1))) == [1, 2, 3, 4, 5]
        # Timeline 2 has what 1 had before it was left, and not what came after.
        assert past.preview("before-switch", RecoveryTarget("xid", past.xids[2])).newest_commit
        with pytest.raises(WalGap, match=f"{past.xids[5]} neither commits"):
            past.preview("after-switch", RecoveryTarget("xid", past.xids[5]))
        assert past.preview("on-one", RecoveryTarget("xid", past.xids[5], timeline=Timeline(1))).newest_commit
    finally:
        path.unlink()
        for left in Path(past.base / "store").glob("**/00000002.history*"):
            left.unlink()


def test_the_preview_names_the_last_commit_before_the_target(past: Past) -> None:
    seen = past.preview("p", RecoveryTarget("lsn", past.ends[2]))
    assert seen.newest_commit is not None
    at = datetime.fromisoformat(seen.newest_commit.removesuffix(" UTC") + "+00:00")
    assert at <= past.moments[2] < past.moments[3]
    assert not (past.base / "p").exists()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_preview_finds_a_times_last_commit_wherever_it_lies(past: Past, number: int) -> None:
    seen = past.preview("p", RecoveryTarget("time", past.moments[number]))
    assert seen.newest_commit is not None
    at = datetime.fromisoformat(seen.newest_commit.removesuffix(" UTC") + "+00:00")
    assert past.moments.get(number - 1, at) <= at <= past.moments[number]


def test_a_store_that_goes_down_at_any_call_promotes_nothing(past: Past) -> None:
    good = past.live.repository
    counting = FaultyStore(good.store)
    past.restore("whole", LATEST, Repository(counting, good.codec, "primary"))
    for call in (1, counting.calls // 2, counting.calls * 2 // 3):
        faulty = FaultyStore(good.store, fail_at=call, stays_down=True)
        with pytest.raises((RestoreError, StoreUnavailable)):
            past.restore("cut", LATEST, Repository(faulty, good.codec, "primary"))
        assert not list(past.base.glob("cut*"))


def test_without_the_key_nothing_is_written(past: Past) -> None:
    good = past.live.repository
    with pytest.raises(KeyUnusable):
        past.restore("keyless", LATEST, Repository(good.store, Codec(1), "primary"))
    assert not list(past.base.glob("keyless*"))


@pytest.mark.parametrize("number", [-3, -2], ids=["on the way", "where the target is"])
@pytest.mark.parametrize("which", ["missing", "flipped"])
def test_wal_that_is_not_there_or_wrong_is_never_the_end(past: Past, which: str, number: int) -> None:
    good = past.live.repository
    archive = good.wal("shop", good.backups("shop")[0].system_id)
    middle = archive.segments(Timeline(1))[number]
    path = past.base / "store" / middle.stored.key
    data = path.read_bytes()
    try:
        if which == "missing":
            path.unlink()
        else:
            path.write_bytes(bytes([*data[:-1], data[-1] ^ 1]))
        target = RecoveryTarget("xid", past.xids[4])
        with pytest.raises((RestoreError, IntegrityError), match="SHA-256" if which == "flipped" else "is missing"):
            past.restore(which, target)
    finally:
        path.write_bytes(data)
    assert not list(past.base.glob(f"{which}*"))


def test_targets_that_cannot_be_written_are_refused(past: Past) -> None:
    (past.base / "file").write_text("")
    with pytest.raises(TargetInUse, match="not a directory"):
        past.restore("file", LATEST)
    with pytest.raises(TargetInUse, match="not empty"):
        past.restore("store", LATEST)
    inside = past.live.server.data_dir / "new"
    with pytest.raises(TargetInUse, match="server's data directory"):
        past.restore(str(inside), LATEST)
    assert any("cannot be restored there" in note for note in past.preview(str(inside), LATEST).notes)
    assert not inside.with_name("new.lock").exists()
    with pytest.raises(RestoreError, match="cannot write below"):
        past.restore("file/below", LATEST)


def test_programs_of_another_version_are_refused_before_anything_is_fetched(past: Past) -> None:
    for programs, said in ((bin_dir(16), "is of PostgreSQL 18"), (past.base / "nowhere", "cannot be run")):
        request = replace(past.live.request(past.base / "wrong", LATEST), bin_dir=programs)
        with pytest.raises(RestoreError, match=said):
            restore(request, [past.live.repository], clock=SystemClock(), runner=Runner(), progress=Silent())
    assert not list(past.base.glob("wrong*"))
