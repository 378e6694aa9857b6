"""What is rotten in a restored copy is found and named, each by the check that is there for it; a sound copy passes on
what was seen of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import UsageError
from dr_pipelines.lsn import Lsn
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.scratch import scratch
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.validation.corruption import (
    indexes_are_sound,
    indexes_are_valid,
    page_checksums_match,
    relations_are_whole,
)
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.verifybackup import pg_verifybackup_agrees
from tests.support.amcheck import own_programs, programs_with_amcheck
from tests.support.live import CLOCK, Live

PASS, FAIL, NOT_PROVEN = Verdict
BLOCK = 8192
TABLES = ("pages", "part", "cut", "gone", "keys", "lacking")


@dataclass(frozen=True)
class Source:
    """A server's full and an incremental on it, in a store. The server is gone."""

    live: Live
    base: Path
    full: str
    incremental: str

    @contextmanager
    def copy(self, programs: Path | None = None, label: str | None = None) -> Iterator[RestoredCopy]:
        request = replace(self.live.request(self.base / "copy"), label=label or self.full)
        if programs is not None:
            request = replace(request, bin_dir=programs)
        repositories = [self.live.repository]
        with scratch(request, repositories, clock=CLOCK, runner=Runner(), progress=Silent()) as server:
            yield RestoredCopy(server, None, ValidationPlan(), datetime.now(UTC))


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    base = open_folder("dr-test-rot-")
    server = EmbeddedPostgres(
        base / "data", settings={"summarize_wal": "on", "fsync": "off"}, initdb=("--wal-segsize=1",)
    )
    repository = Repository(LocalStore(base / "store", "primary"), Codec(1), "primary")
    repository.initialise()
    live = Live(server, repository, base / "state")
    try:
        server.start()
        for table in TABLES:
            server.psql(
                f"CREATE TABLE {table} (id int PRIMARY KEY, said text);"
                f"INSERT INTO {table} SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 1000) n"
            )
        server.psql("CREATE UNLOGGED TABLE fleeting (id int); INSERT INTO fleeting VALUES (1)")
        server.psql(
            "CREATE TABLE letters (said text); ALTER TABLE letters ALTER said SET STORAGE EXTERNAL;"
            "INSERT INTO letters SELECT repeat('x', 20000) FROM generate_series(1, 20)"
        )
        server.psql("VACUUM ANALYZE")
        with live.streaming():
            full = live.take(BackupKind.FULL).label
            incremental = live.take(BackupKind.INCREMENTAL).label
        server.kill()
        yield Source(live, base, full, incremental)
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def psql(copy: RestoredCopy, text: str) -> str:
    connection, host = copy.server().connection, copy.scratch.host
    argv = [str((host.bin_dir or Path()) / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", connection.host]
    return Runner().run(Command([*argv, "-U", "postgres", "-d", "postgres", "-c", text])).stdout.strip()


def file_of(copy: RestoredCopy, relation: str) -> Path:
    ((path,),) = copy.server().ask(f"SELECT pg_relation_filepath('{relation}')")
    return copy.scratch.data_dir / path


def spoil(path: Path, at: int, data: bytes = b"\xff" * 16) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def verdicts(copy: RestoredCopy, *checks: Callable[[RestoredCopy], CheckResult]) -> dict[str, Verdict]:
    return {result.name: result.verdict for result in (check(copy) for check in checks)}


def test_a_sound_copy_passes_on_what_was_seen(source: Source, folder: Path) -> None:
    with source.copy(programs_with_amcheck(folder)) as copy:
        agrees = pg_verifybackup_agrees(copy)
        assert agrees.passed and agrees.details["files"] > 900, agrees
        with pytest.raises(UsageError, match="recovery has ended"), copy.scratch.at_rest():
            pass
        copy.scratch.replay_to_end()
        whole, valid, sound, pages = (
            check(copy) for check in (relations_are_whole, indexes_are_valid, indexes_are_sound, page_checksums_match)
        )
        assert whole.passed and whole.details["rows_read"] > 6000, whole
        assert whole.details["unlogged"] == ["postgres: public.fleeting"]
        assert "no backup has what was in them: 1" in whole.summary
        assert valid.passed and valid.details["indexes"] > 100, valid
        assert sound.passed and sound.details["indexes"] > 100 and sound.details["tables"] > 60, sound
        assert pages.passed and pages.details["pages"] > 2500, pages
        assert copy.server().ask("SELECT count(*) FROM keys") == [(1000,)]  # it runs again

        plan = ValidationPlan(amcheck=False)
        assert indexes_are_sound(replace(copy, plan=plan)).details["applies"] is False

        # a row that no index knows
        psql(copy, "SET allow_system_table_mods = on; UPDATE pg_index SET indisready = false, indisvalid = false "
                   "WHERE indexrelid = 'lacking_pkey'::regclass")  # fmt: skip
        invalid = indexes_are_valid(copy)
        assert invalid.verdict is FAIL and "public.lacking_pkey" in invalid.summary
        told = {"index": {"public.lacking_pkey": "CREATE UNIQUE INDEX lacking_pkey invalid not ready primary"}}
        database = DatabaseFacts(name="postgres", lsn=Lsn(1), snapshot="", taken_at=copy.now, objects=told)
        known = indexes_are_valid(replace(copy, facts=SourceFacts(system_id="1", databases=(database,))))
        assert known.passed and "at the source already" in known.summary
        psql(copy, "INSERT INTO lacking VALUES (5000, 'unseen')")
        psql(copy, "SET allow_system_table_mods = on; UPDATE pg_index SET indisready = true, indisvalid = true "
                   "WHERE indexrelid = 'lacking_pkey'::regclass")  # fmt: skip
        lacking = indexes_are_sound(copy)
        assert lacking.verdict is FAIL, lacking
        assert "postgres.public.lacking_pkey" in lacking.summary and "lacks matching index tuple" in lacking.summary

        # a page of an index, where no checksum tells
        index = file_of(copy, "keys_pkey")
        with copy.scratch.at_rest() as data_dir:
            programs, user = copy.scratch.host.bin_dir, copy.scratch.host.os_user
            Runner().run(Command([f"{programs}/pg_checksums", "--disable", "-D", str(data_dir)], user=user))
            spoil(index, BLOCK + 4000)
        damaged = indexes_are_sound(copy)
        assert damaged.verdict is FAIL
        assert any("postgres.public.keys_pkey" in said for said in damaged.details["damaged"]), damaged
        assert page_checksums_match(copy).verdict is NOT_PROVEN  # there are none any more
        plan = ValidationPlan(page_checksums=False)
        assert page_checksums_match(replace(copy, plan=plan)).details["applies"] is False


def test_damage_is_named_by_the_check_that_is_there_for_it(source: Source) -> None:
    with source.copy() as copy:
        copy.scratch.replay_to_end()
        assert indexes_are_sound(copy).verdict is NOT_PROVEN  # the embedded PostgreSQL has no amcheck
        paths = {name: file_of(copy, name) for name in TABLES}
        ((toast,),) = copy.server().ask("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'letters'")
        letters = file_of(copy, toast)
        with copy.scratch.at_rest():
            spoil(paths["pages"], BLOCK + 5000)
        bad = page_checksums_match(copy)
        assert bad.verdict is FAIL and bad.summary.startswith("1 of ")
        relative = paths["pages"].relative_to(copy.scratch.data_dir)
        assert any(str(relative) in page and "block 1" in page for page in bad.details["damaged"]), bad
        with copy.scratch.at_rest():
            size = paths["cut"].stat().st_size
            with paths["cut"].open("r+b") as file:
                file.truncate(size - 2 * BLOCK)
            with paths["part"].open("r+b") as file:
                file.truncate(size - 100)
            paths["gone"].unlink()
            letters.write_bytes(letters.read_bytes()[: 2 * BLOCK] + bytes(letters.stat().st_size - 2 * BLOCK))
        broken = relations_are_whole(copy)
        assert broken.verdict is FAIL
        said = "\n".join(broken.details["wrong"])
        assert "postgres: public.cut is cut short: it has" in said
        assert "postgres: public.part ends within a block" in said
        assert "postgres: public.gone has no file" in said
        assert "public.letters cannot be read" in said and "missing chunk" in said
        assert "public.pages cannot be read" in said


def test_pg_verifybackup_sees_what_is_not_as_the_server_sent_it(source: Source, folder: Path) -> None:
    with source.copy() as copy:
        version = copy.scratch.data_dir / "PG_VERSION"
        version.write_text("17\n")
        differs = pg_verifybackup_agrees(copy)
        assert differs.verdict is FAIL and "PG_VERSION" in differs.summary
        version.write_text("18\n")
        assert pg_verifybackup_agrees(copy).passed
        programs = own_programs(folder) / "bin"
        (programs / "pg_verifybackup").unlink()
        without = replace(copy.scratch.host, bin_dir=programs)
        copy.scratch.host = without
        assert pg_verifybackup_agrees(copy).verdict is NOT_PROVEN
    with source.copy(label=source.incremental) as copy:
        merged = pg_verifybackup_agrees(copy)
        assert merged.details["applies"] is False and merged.details["backups"] == 2
