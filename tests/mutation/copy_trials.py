"""A restored copy that is not what its source was, before the checks that every validation makes.

Each damage has a database of its own, made from one template, so that one restore stands for many. Data and catalogue
are changed at the source after it told its facts, and come to the copy by WAL; bytes are changed in the copy's files
before it is started. What a check is told is what the template was, and the position at which the copy stands.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import CommandFailed, DrError
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.scratch import ScratchServer, scratch
from dr_pipelines.postgres.source_facts import take_facts
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.validation.subject import Check, RestoredCopy
from dr_pipelines.validation.suite import AT_END, AT_FACTS, BEFORE_START
from tests.mutation.copy_damage import CATALOGUE, CLUSTER, FILES, ROWS, UNSEEN
from tests.mutation.home import SETTINGS, SUMMED
from tests.mutation.ledger import Ledger, Trial
from tests.support.live import CLOCK, Live
from tests.support.rich import make_rich

GOOD = "a_good_one"
_WHOLE_CLUSTER = frozenset({"page_checksums_match"})
"""Looks at every file, whatever database it is of: made once, and counted where it names the damaged file."""
_MOST_FILES = 8
"""Damaged files in one copy: a check names so many at least."""


@dataclass(frozen=True)
class Case:
    """One damage: `database` has it; `sql` is run in it at the source, or `cluster_sql` anywhere, or `file` is changed
    in the copy."""

    kind: str
    database: str
    sql: str | None = None
    cluster_sql: str | None = None
    file: str | None = None


def cases(rng: random.Random, count: int, first: int = 0) -> list[Case]:
    """`count` of all kinds, each as often as any other."""
    kinds = [*(("rows", kind) for kind in ROWS), *(("catalogue", kind) for kind in CATALOGUE),
             *(("cluster", kind) for kind in CLUSTER), *(("files", kind) for kind in FILES)]  # fmt: skip
    turn = [one for _ in range(-(-count // len(kinds))) for one in rng.sample(kinds, len(kinds))][:count]
    return [_case(number, *one, rng) for number, one in enumerate(turn, first)]


def file_cases(rng: random.Random) -> list[Case]:
    """Each damage of a file once."""
    return [_case(number, "files", kind, rng) for number, kind in enumerate(FILES)]


def _case(number: int, group: str, kind: str, rng: random.Random) -> Case:
    name = f"case_{number}"
    if group == "files":
        return Case(kind, name, file=kind)
    if group == "cluster":
        return Case(kind, name, cluster_sql=CLUSTER[kind].format(name=name))
    return Case(kind, name, sql={**ROWS, **CATALOGUE}[kind](rng))


class CopyTrials:
    """Makes servers, damages and copies, a batch at a time."""

    def __init__(self, rng: random.Random, *, checksums: bool = True, programs: Path | None = None) -> None:
        self._rng, self._checksums, self._programs = rng, checksums, programs
        with_or_not = "with" if checksums else "without"
        self.ledger = Ledger(f"restored copies of a server {with_or_not} page checksums")
        self._plan = ValidationPlan(amcheck=programs is not None)

    def run(self, wanted: Sequence[Case], say: Callable[[str], None], *, at_once: int = 60) -> Ledger:
        for batch in _batches(wanted, at_once):
            self._batch(batch)
            say(f"{len(self.ledger.trials)} of {len(wanted)} copies damaged")
        return self.ledger

    def _batch(self, batch: Sequence[Case]) -> None:
        base = open_folder("dr-mutation-copies-")
        initdb = ("--wal-segsize=1", *(() if self._checksums else ("--no-data-checksums",)))
        server = EmbeddedPostgres(base / "data", settings={**SETTINGS, "fsync": "off"}, initdb=initdb)
        repository = Repository(LocalStore(base / "store", "primary"), Codec(1), "primary")
        repository.initialise()
        live = Live(server, repository, base / "state")
        try:
            server.start()
            with live.streaming():
                paths = _make_databases(server, batch)
                told = _facts(server)
                label = live.take(BackupKind.FULL).label
                now = _damage_source(server, batch)
            server.destroy()
            request = replace(live.request(base / "copy"), label=label)
            if self._programs is not None:
                request = replace(request, bin_dir=self._programs)
            with scratch(request, [repository], clock=CLOCK, runner=Runner(), progress=Silent()) as copy:
                for case in batch:
                    if case.file is not None:
                        FILES[case.file].spoil(copy.data_dir / paths[case.database], self._rng)
                self._judge(copy, batch, told, now, paths)
        finally:
            server.kill()
            shutil.rmtree(base, ignore_errors=True)

    def _judge(
        self,
        copy: ScratchServer,
        batch: Sequence[Case],
        told: SourceFacts,
        now: SourceFacts,
        paths: Mapping[str, str],
    ) -> None:
        assert now.lsn is not None
        seen: dict[str, list[str]] = {case.database: [] for case in batch}
        rotten = [case for case in batch if case.file is not None]

        def of_files(checks: Iterable[Check]) -> None:
            """They look at every file, whatever database it is of: each counts where it names the damaged one."""
            for result in self._results(copy, checks, told):
                for case in rotten:
                    if not result.passed and paths[case.database] in str(result.details):
                        seen[case.database].append(result.name)
                if not rotten and not result.passed:
                    self.ledger.alarms.append(f"{result.name} says {result.verdict} of a good copy")

        of_files(BEFORE_START)
        copy.replay_to(RecoveryTarget("lsn", now.lsn, inclusive=False))
        self._good(copy, AT_FACTS, told, now)
        for case in batch:
            seen[case.database] += self._ask(copy, AT_FACTS, _told(case, told, now))
        copy.replay_to_end()
        of_one = [check for check in AT_END if _name(check) not in _WHOLE_CLUSTER]
        with _only(copy, GOOD):
            self._good(copy, of_one, told, now)
        for case in (case for case in batch if case.file is not None or "index" in case.kind):
            with _only(copy, case.database):
                seen[case.database] += self._ask(copy, of_one, _told_of(case.database, told, now))
        of_files(check for check in AT_END if _name(check) in _WHOLE_CLUSTER and self._checksums)
        for case in batch:
            self.ledger.add(
                Trial(case.kind, case.database, tuple(dict.fromkeys(seen[case.database])), None, UNSEEN.get(case.kind))
            )

    def _good(self, copy: ScratchServer, checks: Iterable[Check], told: SourceFacts, now: SourceFacts) -> None:
        found = self._ask(copy, checks, _told_of(GOOD, told, now))
        self.ledger.alarms += [f"{name} does not pass on a good copy" for name in found]
        self.ledger.good += 1

    def _ask(self, copy: ScratchServer, checks: Iterable[Check], facts: SourceFacts) -> list[str]:
        """Those that do not pass."""
        return [result.name for result in self._results(copy, checks, facts) if not result.passed]

    def _results(self, copy: ScratchServer, checks: Iterable[Check], facts: SourceFacts) -> Iterator[CheckResult]:
        subject = RestoredCopy(copy, facts, self._plan, CLOCK.now())
        for check in checks:
            try:
                yield check(subject)
            except DrError as error:
                yield CheckResult(_name(check), Verdict.NOT_PROVEN, error.message)


def _name(check: Check) -> str:
    return str(getattr(check, "__name__", ""))


def _batches(wanted: Sequence[Case], at_once: int) -> Iterator[list[Case]]:
    """Of files no more in each than a check names."""
    left = [*wanted]
    while left:
        batch: list[Case] = []
        files = 0
        for case in [*left]:
            if len(batch) == at_once:
                break
            if case.file is None or files < _MOST_FILES:
                files += case.file is not None
                batch.append(case)
                left.remove(case)
        yield batch


# --- the source ---


def _make_databases(server: EmbeddedPostgres, batch: Sequence[Case]) -> dict[str, str]:
    """And where each damaged file will lie in the copy."""
    make_rich(server)
    server.psql("VACUUM ANALYZE")
    for name in (GOOD, *(case.database for case in batch)):
        server.psql(f"CREATE DATABASE {name} TEMPLATE postgres STRATEGY file_copy", "template1")
    paths = {}
    for case in batch:
        if case.cluster_sql is not None:
            server.psql(f"CREATE ROLE {case.database} LOGIN PASSWORD 'x'")
            server.psql(f"GRANT office TO {case.database}")
            server.psql(f"ALTER ROLE {case.database} SET statement_timeout = '8s'")
        if case.file is not None:
            relation = FILES[case.file].relation
            paths[case.database] = server.psql(f"SELECT pg_relation_filepath('{relation}')", case.database)
    return paths


def _damage_source(server: EmbeddedPostgres, batch: Sequence[Case]) -> SourceFacts:
    for case in batch:
        if case.sql is not None:
            server.psql(case.sql, case.database)
        if case.cluster_sql is not None:
            server.psql(case.cluster_sql)
    now = _facts(server)
    server.psql("SELECT pg_switch_wal()")
    return now


def _facts(server: EmbeddedPostgres) -> SourceFacts:
    after = server.server.flush_lsn()
    return take_facts(server.server, SUMMED, after=after, label="facts", system_id="1", seconds=60, clock=CLOCK)


# --- what a check is told ---


def _told_of(database: str, told: SourceFacts, now: SourceFacts) -> SourceFacts:
    """Of a database what the template was; at the position, and with the sight, of when the copy stands."""
    template, at = told.database(GOOD), now.database(GOOD)
    assert template is not None and at is not None
    here = template.model_copy(update={"name": database, "lsn": at.lsn, "snapshot": at.snapshot})
    return told.model_copy(update={"databases": (here,), "cluster": {}, "trouble": {}})


def _told(case: Case, told: SourceFacts, now: SourceFacts) -> SourceFacts:
    facts = _told_of(case.database, told, now)
    if case.cluster_sql is None:
        return facts
    kinds = {*told.cluster, *now.cluster}
    return facts.model_copy(update={"cluster": {kind: _merged(kind, case.database, told, now) for kind in kinds}})


def _merged(kind: str, name: str, told: SourceFacts, now: SourceFacts) -> dict[str, str]:
    """The cluster as it is, but for what is about one role or database: that as it was."""

    def about(objects: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in objects.items() if name in key.replace('"', "").split()}

    is_now, was = now.cluster.get(kind, {}), told.cluster.get(kind, {})
    return {**{key: value for key, value in is_now.items() if key not in about(is_now)}, **about(was)}


@contextmanager
def _only(copy: ScratchServer, database: str) -> Iterator[None]:
    """The others cannot be connected to, so that what a check says is of this one (and of `postgres`, from which it
    starts)."""
    _psql(copy, f"UPDATE pg_database SET datallowconn = datname IN ('postgres', 'template1', '{database}')")
    yield
    _psql(copy, "UPDATE pg_database SET datallowconn = datname <> 'template0'")


@retry(retry=retry_if_exception_type(CommandFailed), wait=wait_fixed(0.5), stop=stop_after_delay(60), reraise=True)
def _psql(copy: ScratchServer, text: str) -> None:
    """A page may be rotten enough to bring the server down when it is read; it comes back by itself."""
    connection, programs = copy.server().connection, copy.host.bin_dir or Path()
    argv = [str(programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", connection.host, "-p", str(connection.port)]
    Runner().run(Command([*argv, "-U", "postgres", "-d", "postgres", "-c", text]))
