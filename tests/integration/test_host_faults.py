"""What is no fault of a backup fails none: timeouts that its source sets, and what the host of the copy lacks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import HostTooSmall
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.restore_files import RestoredFiles
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.source_facts import WantedFacts
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.validation.baseline import baseline_is_met
from dr_pipelines.validation.consistency import source_is_matched
from dr_pipelines.validation.fidelity import catalogue_is_matched
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.validate import read_facts
from tests.support.live import Live

_IMPATIENT = """
CREATE TABLE things (id int PRIMARY KEY, said text);
INSERT INTO things SELECT g, md5(g::text) FROM generate_series(1, 30000) g;
ALTER DATABASE impatient SET statement_timeout = '1ms';
"""


@pytest.fixture(scope="module", params=[16])
def copy(request: pytest.FixtureRequest) -> Iterator[tuple[ScratchServer, SourceFacts]]:
    """Of a server that lets no statement of its applications take long."""
    base = open_folder("dr-test-host-")
    server = EmbeddedPostgres(base / "pg" / "data", request.param, initdb=("--wal-segsize=1",))
    repository = Repository(LocalStore(base / "repository", "primary"), Codec(1), "primary")
    repository.initialise()
    server.start()
    try:
        server.psql("CREATE DATABASE impatient")
        server.psql(_IMPATIENT, "impatient")
        live = Live(server, repository, base / "state")
        with live.streaming():
            full = live.take(BackupKind.FULL, WantedFacts(checksums=("public.*",)))
        facts = read_facts(repository, full)
        assert facts is not None and facts.lsn is not None and not facts.trouble
        with live.scratch(base / "copy", full.label) as made:
            made.replay_to(RecoveryTarget("lsn", facts.lsn, inclusive=False))
            yield made, facts
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def test_timeouts_of_the_source_do_not_end_what_looks_at_its_copy(copy: tuple[ScratchServer, SourceFacts]) -> None:
    server, facts = copy
    subject = RestoredCopy(server, facts, ValidationPlan(), datetime.now(UTC))
    for check in (source_is_matched, catalogue_is_matched, baseline_is_met):
        result = check(subject)
        assert result.verdict is Verdict.PASS, result


def test_what_the_source_told_in_doubt_fails_no_baseline(copy: tuple[ScratchServer, SourceFacts]) -> None:
    """Transactions that ended while the source was looked at, and a standby that went on replaying."""
    server, facts = copy
    fuller = tuple(
        told.model_copy(update={"tables": tuple(t.model_copy(update={"rows": 10**6}) for t in told.tables)})
        for told in facts.databases
    )
    overlapped = tuple(told.model_copy(update={"snapshot": "3:3:"}) for told in fuller)
    wrong = facts.model_copy(update={"databases": fuller})
    doubted = facts.model_copy(update={"databases": overlapped})
    moving = wrong.model_copy(update={"in_recovery": True, "trouble": {"position": "0/1: it went on"}})
    for told, verdict in ((wrong, Verdict.FAIL), (doubted, Verdict.NOT_PROVEN), (moving, Verdict.NOT_PROVEN)):
        result = baseline_is_met(RestoredCopy(server, told, ValidationPlan(), datetime.now(UTC)))
        assert result.verdict is verdict, result
        assert "1,000,000 that were counted" in result.summary


def test_a_copy_leaves_room_for_what_else_is_on_the_disk(
    copy: tuple[ScratchServer, SourceFacts], tmp_path: Path
) -> None:
    server, _ = copy
    files = RestoredFiles(RestoreRequest("shop", tmp_path / "copy"), tmp_path / "copy.partial", print)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(HostTooSmall, match="the restore needs"):
        files.unpack(server.source.repository, server.candidate, lambda _: None, spare=free)
    assert not [*tmp_path.iterdir()]
