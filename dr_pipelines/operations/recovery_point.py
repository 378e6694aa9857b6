"""One recovery point for a database and the files that its rows point at: `dr restore --with-files`.

The rows are read from the restored server as soon as it stands at its target, before it is handed over; the files are
chosen by them and restored beside it. A database that is restored is never lost to files that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dr_pipelines.errors import DrError, RecallPending, RestoreError, TargetInUse, UsageError
from dr_pipelines.files.placing import is_free
from dr_pipelines.files.restore import FilesReport, restore_rows
from dr_pipelines.files.restore_recall import Recalling
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.operations.file_foresight import ask_for_files
from dr_pipelines.operations.file_restores import recalling_of
from dr_pipelines.operations.recovery import restore
from dr_pipelines.operations.references import References, references_of
from dr_pipelines.postgres.restore import RestoreReport
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_target import refuse_used
from dr_pipelines.postgres.server import Server
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.pairing import Pairing, pair
from dr_pipelines.repository.layout import parse_label
from dr_pipelines.repository.recall import again_in, told
from dr_pipelines.site import Site
from dr_pipelines.wording import counted

_NAMED = 300
"""So many rows without their file are named; all are counted."""


@dataclass(frozen=True)
class FilesRestored:
    """What came back of one file set. `at` is the instant; `used`: how many files each snapshot gave. Of the `rows`
    that point at files, `proven` have the file of their digest, `likely` one of that instant by its times, `doubtful`
    only a later one, `missing` none, and the first of these are named. `rpo_seconds`: how old at that instant the
    snapshot was that the files without a row come from; None where there was none. `trouble`: why it was not restored,
    or chosen by time alone."""

    file_set: str
    target: Path
    at: datetime
    used: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    proven: int = 0
    likely: int = 0
    doubtful: int = 0
    missing: int = 0
    missing_named: tuple[str, ...] = ()
    rpo_seconds: float | None = None
    report: FilesReport | None = None
    trouble: str | None = None

    @property
    def is_whole(self) -> bool:
        """Every row has its file, and every file that was to come is there."""
        failed = self.report is None or bool(self.report.failed)
        return not failed and self.trouble is None and not self.missing and not self.doubtful


@dataclass(frozen=True)
class RecoveryPoint:
    """A restored server, and the files of the same instant."""

    database: RestoreReport
    files: tuple[FilesRestored, ...]

    def require_whole(self) -> None:
        """Raises `RestoreError` that says what of the files is not as it was."""
        broken = "; ".join(f"{one.file_set}: {_trouble(one)}" for one in self.files if not one.is_whole)
        if broken:
            raise RestoreError(
                f"the database is restored, and its files are not all as they were: {broken}",
                hint="what is named was on no tier as the rows have it; `--json` lists it. The database can be used.",
            )


def _trouble(one: FilesRestored) -> str:
    if one.trouble is not None:
        return one.trouble
    failed = len(one.report.failed) if one.report is not None else 0
    counts = {"without its file": one.missing, "with a later one only": one.doubtful}
    told = [f"{counted(count, 'row')} {what}" for what, count in counts.items() if count]
    return ", ".join([*told, *([f"{counted(failed, 'path')} not restored"] if failed else [])])


def restore_with_files(
    site: Site,
    request: RestoreRequest,
    progress: Progress,
    *,
    file_sets: Sequence[str] = (),
    files_to: Path | None = None,
    tier: str | None = None,
) -> RecoveryPoint:
    """`file_sets`: those that have rows in this server when none is named. Each goes to `<files_to>/<set>`, which must
    be empty or not there. Raises `UsageError`, `TargetInUse` before anything is done, `RecallPending` before anything
    is written when bytes of database or files are offline and not waited for, then what a restore of the database
    raises; what becomes of the files is in the report."""
    refuse_used(request.target_dir)
    chosen = [*file_sets] or _sets_of(site, request.server)
    folder = files_to or request.target_dir.parent / f"{request.target_dir.name}-files"
    targets = {name: folder / name for name in chosen}
    for name, target in targets.items():
        site.file_set(name)
        site.storage_of(name)
        _require_free(site, name, target)
    references = {name: _references(site, name, request.server) for name in chosen}
    seen = _Seen(references, progress)
    recalling = {name: recalling_of(site, name, wait=request.wait, urgent=request.urgent) for name in chosen}
    require = _require_at_hand(site, request, references, recalling, progress)
    report = restore(site, replace(request, at_target=seen.look, before_writing=require), progress, tier=tier)
    at = _instant(site, request, report, seen)
    restored = [
        _restore_files(site, name, target, at, seen, recalling[name], progress) for name, target in targets.items()
    ]
    return RecoveryPoint(report, tuple(restored))


class _Seen:
    """What the restored server said at its target: its rows, by file set, or why they could not be read."""

    def __init__(self, references: dict[str, References | None], progress: Progress) -> None:
        self._references, self._progress = references, progress
        self.rows: dict[str, Any] = {}
        self.troubles: dict[str, str] = {}
        self.until: datetime | None = None

    def look(self, server: Server) -> None:
        self.rows, self.troubles = {}, {}
        try:
            self.until = server.replayed_until()
        except DrError as error:
            self._progress.note(f"the restored server does not say when its target was: {error.message}")
        for name, references in self._references.items():
            if references is None:
                continue
            try:
                self.rows[name] = replace(references, find=_found(server), gentle=False).read()
            except DrError as error:
                self.troubles[name] = f"its rows cannot be read, so it is chosen by time alone: {error.message}"
                self._progress.note(f"{name}: {self.troubles[name]}")


def _found(server: Server) -> Any:
    return lambda _, database: Server(replace(server.connection, dbname=database))


def _sets_of(site: Site, server: str) -> list[str]:
    found = [
        name for name in site.file_sets if any(one.server == server for one in site.file_set(name).references.values())
    ]
    if not found:
        raise UsageError(
            f"no file set of the plan has rows in {server}",
            hint="name those to restore with --files SET, or the rows in file_storage.SET.references.",
        )
    return found


def _references(site: Site, file_set: str, server: str) -> References | None:
    """Those in the server that is restored; None when there are none."""
    if not site.file_set(file_set).references:
        return None
    found = references_of(site, file_set).of_server(server)
    return found if found.named else None


def _require_free(site: Site, file_set: str, target: Path) -> None:
    if target.exists() and not (target.is_dir() and is_free(target)):
        raise TargetInUse(f"{target} is not empty", hint="name another folder with --files-to.")
    source = site.file_set(file_set).source
    live = getattr(source, "path", None)
    if live is not None and target.resolve().is_relative_to(live.resolve()):
        raise TargetInUse(
            f"{target} lies in the live files of {file_set}", hint="name a folder of its own with --files-to."
        )


def _instant(site: Site, request: RestoreRequest, report: RestoreReport, seen: _Seen) -> datetime:
    """Of files that belong to the target: its time where it is one, now for the newest; else that of the newest
    transaction in the database, or of the backup that nothing was replayed on."""
    if isinstance(request.target.value, datetime):
        return request.target.value
    if request.target.kind == "latest":
        return site.clock.now()
    return seen.until or parse_label(report.chain[-1])[0]


def _require_at_hand(
    site: Site,
    request: RestoreRequest,
    references: Mapping[str, References | None],
    recalling: Mapping[str, Recalling],
    progress: Progress,
) -> Callable[[], None]:
    """Asks for what is offline of the files. What is returned raises `RecallPending` when they are not at hand, unless
    they are waited for: that is called when the database's own bytes are, so all are asked for in one run."""
    at = request.target.value if isinstance(request.target.value, datetime) else site.clock.now()
    asked = {
        name: ask_for_files(site, name, at, recalling[name], progress, by_rows=rows is not None)
        for name, rows in references.items()
    }
    away = {name: offline for name, offline in asked.items() if offline is not None}

    def require() -> None:
        if away and not request.wait:
            slowest = max(away.values(), key=lambda offline: offline.seconds)
            said = "; ".join(f"{name}: {told(offline)}" for name, offline in away.items())
            raise RecallPending(
                f"the database is at hand, and its files are not: {said}; nothing was changed here",
                hint=f"{again_in(slowest)} Without --with-files the database can be restored now.",
            )

    return require


def _restore_files(
    site: Site,
    file_set: str,
    target: Path,
    at: datetime,
    seen: _Seen,
    recalling: Recalling,
    progress: Progress,
) -> FilesRestored:
    trouble = seen.troubles.get(file_set)
    try:
        repositories, notes = site.readable_repositories(file_set)
        for note in notes:
            progress.note(note)
        tiers = Tiers(repositories, file_set, progress)
        progress.phase("pair")
        snapshots = [one.manifest for one in tiers.known() if one.trouble is None]
        found = pair(seen.rows.get(file_set), snapshots, at, tiers.table)
        archives = {archive.name: archive for one in found.snapshots for archive in one.archives}
        report = restore_rows(
            tiers,
            found.files,
            archives.values(),
            target,
            snapshot=", ".join(found.used) or "no snapshot",
            recalling=recalling,
            clock=site.clock,
            progress=progress,
        )
    except RecallPending as error:
        command = f"`dr files restore {file_set} {at.isoformat()} {target} --wait` brings those of that time"
        return FilesRestored(file_set, target, at, trouble=f"{error.message}; {command}")
    except DrError as error:
        return FilesRestored(file_set, target, at, trouble=error.message)
    if found.before is None and not found.used:
        trouble = f"no snapshot is from before {at:%Y-%m-%d %H:%M:%S} UTC, and none after it has a file of its rows"
    return _told(file_set, target, found, report, trouble)


def _told(file_set: str, target: Path, found: Pairing, report: FilesReport, trouble: str | None) -> FilesRestored:
    paths: list[bytes] = found.missing["path"][:_NAMED].to_pylist()
    return FilesRestored(
        file_set,
        target,
        found.at,
        used=found.used,
        rows=found.rows,
        proven=found.proven,
        likely=found.likely,
        doubtful=found.doubtful,
        missing=len(found.missing),
        missing_named=tuple(shown(path) for path in paths),
        rpo_seconds=found.seconds,
        report=report,
        trouble=trouble,
    )
