"""A restore from plan to proven server, and the preview of one.

Everything is built in `<target>.partial`; pg_control is written last, and the directory gets its name when all of it
is on disk and recovered. A candidate whose bytes prove bad gives way to the next one by itself, and then to the next
tier.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.errors import (
    BackupNotFound,
    DrError,
    IntegrityError,
    RepositoryError,
    RestoreError,
    StoreError,
    TargetInUse,
)
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import backup_manifest, tools
from dr_pipelines.postgres.recover import Host, Recovered, own, recover
from dr_pipelines.postgres.restore_plan import (
    LATEST,
    Candidate,
    RecoveryTarget,
    RestorePlan,
    Switch,
    UseIncrementals,
    WalSpan,
    plan_restore,
)
from dr_pipelines.postgres.unpack import PG_CONTROL, Link, sync_tree, unpack_chain
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.progress import Progress
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.pack import fetch_verified
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive

_COMMIT = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+),.*COMMIT (?:PREPARED )?.*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)")
_LOOKED_AT = 16  # segments, for the newest commit
_GIVES_WAY = (IntegrityError, StoreError, RepositoryError)


@dataclass(frozen=True)
class RestoreRequest:
    """What a person asks for. `tablespaces` maps an old location or an oid (as text) to a new directory; the others go
    to `<target_dir>_tablespaces/<oid>`. `os_user` is the account that the server runs as when we are root. Without
    `bin_dir`, `find_bin_dir` is asked with the major version of the backup; None takes the programs from PATH."""

    server: str
    target_dir: Path
    target: RecoveryTarget = LATEST
    label: str | None = None
    use_incrementals: UseIncrementals = "auto"
    bin_dir: Path | None = None
    find_bin_dir: Callable[[int], Path | None] = field(default=lambda major: None, repr=False)
    os_user: str | None = None
    superuser: str = "postgres"
    tablespaces: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class RestoreReport:
    """What was done. `phases` in seconds; their sum is the measured recovery time."""

    server: str
    data_dir: Path
    tier: str
    chain: tuple[str, ...]
    target: str
    reached_lsn: Lsn
    timeline: Timeline
    bytes: int
    wal_bytes: int
    phases: dict[str, float]
    stopped: str | None
    start_command: str
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())


@dataclass(frozen=True)
class RestorePreview:
    """What a restore would do. `newest_commit` is None where pg_waldump is not at hand."""

    server: str
    tier: str
    chain: tuple[str, ...]
    target: str
    wal_start: Lsn
    reachable_end: Lsn
    bytes: int
    stored_bytes: int
    wal_bytes: int
    estimated_seconds: float
    newest_commit: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A tier that can serve the restore."""

    repository: Repository
    backups: tuple[BackupManifest, ...]
    archive: WalArchive
    plan: RestorePlan


def restore(
    request: RestoreRequest, repositories: Sequence[Repository], *, clock: Clock, runner: Runner, progress: Progress
) -> RestoreReport:
    """Restore and recover; the server in `target_dir` is stopped and whole when this returns.

    `repositories` in order of preference. Raises `TargetInUse`, `TargetUnreachable`, `WalGap`, `RestoreError` or what
    the stores raise; then nothing is left behind.
    """
    _refuse_used(request.target_dir)
    with _alone(request.target_dir):
        return _Restoring(request, repositories, clock, runner, progress).run()


def preview(request: RestoreRequest, repositories: Sequence[Repository], *, runner: Runner) -> RestorePreview:
    """What `restore` would do with the same request. Reads manifests, listings and one WAL segment."""
    sources, notes = _sources(request, repositories)
    source = sources[0]
    best = source.plan.candidates[0]
    try:
        newest = _newest_commit(source, request, runner)
    except DrError as error:
        newest, notes = None, [*notes, f"the newest commit could not be read: {error.message}"]
    return RestorePreview(
        server=request.server,
        tier=source.repository.tier,
        chain=tuple(backup.label for backup in best.chain),
        target=str(request.target),
        wal_start=best.wal_start,
        reachable_end=source.plan.reachable_end,
        bytes=best.bytes,
        stored_bytes=sum(backup.stored_size for backup in best.chain),
        wal_bytes=best.wal_bytes,
        estimated_seconds=best.estimated_seconds,
        newest_commit=newest,
        notes=(*source.plan.notes, *notes),
    )


class _Restoring:
    """One restore."""

    def __init__(
        self,
        request: RestoreRequest,
        repositories: Sequence[Repository],
        clock: Clock,
        runner: Runner,
        progress: Progress,
    ) -> None:
        self._request, self._repositories = request, repositories
        self._clock, self._runner, self._progress = clock, runner, progress
        self._phases: dict[str, float] = {}
        self._notes: list[str] = []
        self._partial = request.target_dir.with_name(f"{request.target_dir.name}.partial")
        self._folder = request.target_dir.with_name(f"{request.target_dir.name}.wal")
        self._bin_dir = request.bin_dir

    def run(self) -> RestoreReport:
        with self._phase("plan"):
            sources, notes = _sources(self._request, self._repositories)
            for note in notes:
                self._note(note)
            self._bin_dir = _require_programs(self._request, sources[0].backups[-1], self._runner)
        trouble: DrError | None = None
        for source in sources:
            for candidate in source.plan.candidates:
                try:
                    return self._attempt(source, candidate, sources)
                except _GIVES_WAY as error:
                    trouble = trouble or error
                    self._note(f"{candidate.label} on {source.repository.tier} cannot be used: {error.message}")
        assert trouble is not None
        raise trouble

    def _attempt(self, source: _Source, candidate: Candidate, sources: Sequence[_Source]) -> RestoreReport:
        request = self._request
        spaces: list[Path] = []
        try:
            with self._phase("restore", candidate.bytes):
                links = [self._link(source.repository, backup) for backup in candidate.chain]
                self._require_room(links)
                self._partial.mkdir(parents=True, mode=0o700)
                spaces = self._prepare_tablespaces(candidate.chain[-1])
                control = unpack_chain(links, self._partial, advance=self._progress.advance)
            with self._phase("sync"):
                (self._partial / "pg_wal" / "archive_status").mkdir(parents=True, exist_ok=True)
                sync_tree(self._partial)
                (self._partial / PG_CONTROL).write_bytes(control)
                (self._partial / PG_CONTROL).chmod(0o600)
                sync_tree(self._partial / "global")
            with self._phase("recover", candidate.wal_bytes):
                recovered, wal_bytes = self._recover(source, candidate, sources)
            self._partial.rename(request.target_dir)
        except BaseException:
            for folder in (self._partial, *spaces):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return RestoreReport(
            server=request.server,
            data_dir=request.target_dir,
            tier=source.repository.tier,
            chain=tuple(backup.label for backup in candidate.chain),
            target=str(request.target),
            reached_lsn=recovered.reached,
            timeline=recovered.timeline,
            bytes=candidate.bytes,
            wal_bytes=wal_bytes,
            phases=dict(self._phases),
            stopped=recovered.stopped,
            start_command=str(tools.pg_ctl_start(request.target_dir, bin_dir=self._bin_dir, user=request.os_user)),
            notes=(*source.plan.notes, *self._notes, *recovered.notes),
        )

    def _recover(self, source: _Source, candidate: Candidate, sources: Sequence[_Source]) -> tuple[Recovered, int]:
        newest = candidate.chain[-1]
        host = Host(self._runner, self._clock, self._bin_dir, self._request.os_user, self._request.superuser)
        own(self._partial, host.os_user)
        archives = [source.archive, *(other.archive for other in sources if other is not source)]
        fetcher = WalFetcher(
            archives,
            self._folder,
            timeline=source.plan.timeline,
            segment_size=newest.segment_size,
            os_user=host.os_user,
            clock=self._clock,
        )
        with fetcher:
            recovered = recover(
                self._partial,
                self._request.target,
                fetcher,
                host,
                timeline=source.plan.timeline,
                version_num=newest.postgres_version_num,
                final_dir=self._request.target_dir,
            )
        return recovered, fetcher.bytes

    def _link(self, repository: Repository, backup: BackupManifest) -> Link:
        stored = fetch_verified(repository.store, backup.backup_manifest)
        told = backup_manifest.parse(repository.codec.decode(stored))
        return Link(backup, repository.open_archive(backup), told)

    def _require_room(self, links: Sequence[Link]) -> None:
        needed = sum(file.size for link in links for file in link.told.files.values())
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._partial.parent).free
        if needed > free:
            raise RestoreError(
                f"{self._partial.parent} has {free >> 20} MiB free, and the restore needs {needed >> 20} MiB",
                hint="make room, or restore to another disk.",
            )

    def _prepare_tablespaces(self, backup: BackupManifest) -> list[Path]:
        """Each tablespace's new directory, and the link to it through which its files are written."""
        made: list[Path] = []
        for space in backup.tablespaces:
            default = self._request.target_dir.with_name(f"{self._request.target_dir.name}_tablespaces") / str(
                space.oid
            )
            given = self._request.tablespaces.get(str(space.oid), self._request.tablespaces.get(space.location))
            location = (given or default).absolute()
            _refuse_used(location)
            location.mkdir(parents=True, mode=0o700, exist_ok=True)
            own(location, self._request.os_user)
            link = self._partial / "pg_tblspc" / str(space.oid)
            link.parent.mkdir(exist_ok=True, mode=0o700)
            link.symlink_to(location)
            made.append(location)
            self._note(f"tablespace {space.oid}, which was at {space.location}, is at {location}")
        return made

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._progress.note(text)

    @contextmanager
    def _phase(self, name: str, total: int | None = None) -> Iterator[None]:
        self._progress.phase(name, total)
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + self._clock.monotonic() - started


def _sources(request: RestoreRequest, repositories: Sequence[Repository]) -> tuple[list[_Source], list[str]]:
    """The tiers that can serve the request, and why others cannot. Raises the first tier's trouble when none can."""
    found: list[_Source] = []
    notes: list[str] = []
    trouble: DrError | None = None
    for repository in repositories:
        try:
            found.append(_source(request, repository))
        except (StoreError, RepositoryError, RestoreError) as error:
            trouble = trouble or error
            notes.append(f"{repository.tier} cannot be used: {error.message}")
    if not found:
        raise trouble or BackupNotFound(f"no tier is named to restore {request.server} from")
    return found, notes


def _source(request: RestoreRequest, repository: Repository) -> _Source:
    repository.check_format()
    backups = repository.backups(request.server)
    if request.label is not None:
        wanted = repository.backup(request.server, request.label)
    elif backups:
        wanted = backups[-1]
    else:
        raise BackupNotFound(
            f"there is no backup of {request.server} on {repository.tier}", hint=f"take one: dr backup {request.server}"
        )
    of_system = tuple(backup for backup in backups if backup.system_id == wanted.system_id)
    archive = repository.wal(request.server, wanted.system_id)
    spans = [WalSpan(found.timeline, found.start, found.end) for found in archive.ranges()]
    plan = plan_restore(
        of_system,
        spans,
        _histories(archive),
        request.target,
        label=request.label,
        use_incrementals=request.use_incrementals,
    )
    return _Source(repository, of_system, archive, plan)


def _histories(archive: WalArchive) -> dict[Timeline, Switch]:
    found: dict[Timeline, Switch] = {}
    for timeline in archive.timelines():
        data = archive.history(timeline) if timeline.id > 1 else None
        rows = parse_history(data) if data else []
        if rows and rows[-1][1] is not None:
            found[timeline] = Switch(rows[-1][0], rows[-1][1])
    return found


def _newest_commit(source: _Source, request: RestoreRequest, runner: Runner) -> str | None:
    """The time of the last commit before the target, as pg_waldump prints it (UTC), from the newest segments."""
    timeline, target = source.plan.timeline, request.target
    bin_dir = request.bin_dir or request.find_bin_dir(source.backups[-1].postgres_version_num // 10_000)
    reads = [(s.segment, partial(source.archive.read_segment, s.segment)) for s in source.archive.segments(timeline)]
    head = source.archive.newest_partial(timeline)
    if head is not None and (not reads or head.segment > reads[-1][0]):
        reads.append((head.segment, partial(source.archive.read_partial, head)))
    if isinstance(target.value, Lsn):
        reads = [read for read in reads if read[0].start < target.value]
    for segment, read in reversed(reads[-_LOOKED_AT:]):
        commits = [at for lsn, at in _commits(segment.name, read(), bin_dir, runner) if _is_before(lsn, at, target)]
        if commits:
            return f"{commits[-1].isoformat(sep=' ')} UTC"
    return None


def _commits(name: str, data: bytes, bin_dir: Path | None, runner: Runner) -> list[tuple[Lsn, datetime]]:
    with tempfile.TemporaryDirectory(prefix="dr-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        command = Command([tools.program("pg_waldump", bin_dir), str(path)], env={"TZ": "UTC"})
        # It ends with an error where the WAL ends; what it printed before that counts.
        said = runner.run(command, check=False).stdout
    return [(Lsn.parse(lsn), datetime.fromisoformat(at)) for lsn, at in _COMMIT.findall(said)]


def _is_before(lsn: Lsn, at: datetime, target: RecoveryTarget) -> bool:
    if isinstance(target.value, Lsn):
        return lsn < target.value
    return not isinstance(target.value, datetime) or at.replace(tzinfo=UTC) <= target.value


def _require_programs(request: RestoreRequest, backup: BackupManifest, runner: Runner) -> Path | None:
    """The folder of PostgreSQL's programs; they are there and of the backup's major version."""
    major = backup.postgres_version_num // 10_000
    bin_dir = request.bin_dir or request.find_bin_dir(major)
    hint = f"install PostgreSQL {major}, or name the folder of its programs with databases.{request.server}.bin_dir."
    try:
        said = runner.run(Command([tools.program("postgres", bin_dir), "--version"], timeout=60)).stdout
    except DrError as error:
        raise RestoreError(f"PostgreSQL {major} cannot be run on this machine: {error.message}", hint=hint) from error
    found = re.search(r"(\d+)", said)
    if found is None or int(found[1]) != major:
        raise RestoreError(f"the backup is of PostgreSQL {major}, and this machine has {said.strip()!r}", hint=hint)
    return bin_dir


@contextmanager
def _alone(target_dir: Path) -> Iterator[None]:
    """One restore at a time into a target; what a killed one left is removed."""
    path = target_dir.with_name(f"{target_dir.name}.lock")
    try:
        target_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise RestoreError(
            f"cannot write below {target_dir.parent}: {error.strerror}", hint="name another directory with --to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TargetInUse(f"another restore writes to {target_dir}", hint="wait for it, or name another.") from None
        for leftover in ("partial", "wal"):
            _remove_leftover(target_dir.with_name(f"{target_dir.name}.{leftover}"))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _remove_leftover(folder: Path) -> None:
    """Of a restore that was killed; its server, if it outlived it, is ended first."""
    pid_file = folder / "postmaster.pid"
    if pid_file.exists() and (line := pid_file.read_text().split("\n")[0]).isdigit():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            server = psutil.Process(int(line))
            if Path(server.cwd()) == folder.resolve():
                server.send_signal(signal.SIGQUIT)
                server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_used(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise TargetInUse(f"{path} is not a directory", hint="name a directory that does not exist yet.")
    if path.is_mount():
        raise TargetInUse(f"{path} is a mount point", hint="name a directory below it that does not exist yet.")
    if path.exists() and any(path.iterdir()):
        running = " and a server may run in it" if (path / "postmaster.pid").exists() else ""
        raise TargetInUse(
            f"{path} is not empty{running}", hint="name a directory that does not exist yet; nothing was touched."
        )
