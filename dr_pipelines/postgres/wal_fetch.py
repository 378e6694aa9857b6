"""WAL for a recovering server: fetched ahead, handed over through a directory, with honest answers.

PostgreSQL runs `restore_command` for each file. Ours is a few lines of shell (the server's account may not be able to
run our Python): it asks by touching `want/<name>` and waits for `ready/<name>`, `absent/<name>` or `failed/<name>`.
Exit code 1 ends recovery and promotes, so it is given only when complete listings of every tier prove that there is no
such file and nothing after it; anything else exits over 125, which aborts recovery. (Of a recovery with a target, which
must reach it, 1 also says that a file is offline: PostgreSQL reads ahead, and may not need it.)
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ObjectOffline, RestoreError, TargetInUse, WalGap
from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name, is_segment_name
from dr_pipelines.postgres.wal_tablespaces import created_tablespaces
from dr_pipelines.postgres.wal_tiers import FoundWal, WalTiers

READ_AHEAD = 8
"""Segments, and at most so many bytes of them."""
READ_AHEAD_BYTES = 256 << 20
_SCRIPT = """#!/bin/sh
# restore_command of a restore: asks the restoring process for WAL file $1, to be put at $2.
cd {folder} || exit 200
# Not `:`, whose failing redirection would end the shell with a code that means "not there".
true > "want/$1" || exit 201
while :; do
  if [ -e "ready/$1" ]; then cd - > /dev/null || exit 202; mv {folder}/"ready/$1" "$2" && exit 0; exit 203; fi
  [ -e "absent/$1" ] && exit 1
  [ -e "failed/$1" ] && exit 204
  [ -d /proc/{pid} ] || exit 205
  [ -d want ] || exit 206
  sleep 0.02
done
"""


class _Answer(StrEnum):
    READY = "ready"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True)
class _Found:
    """Bytes of a file, and where its WAL ends (None for a history file)."""

    data: bytes
    end: Lsn | None = None


class WalFetcher:
    """Serves one recovery from `wal`. Use as a context manager."""

    def __init__(
        self,
        wal: WalTiers,
        folder: Path,
        *,
        timeline: Timeline,
        replayed_from: Lsn,
        segment_size: int,
        os_user: str | None,
        clock: Clock,
        has_target: bool = False,
    ) -> None:
        self._wal, self._folder, self._clock = wal, folder, clock
        self.segment_size, self._timeline, self._replayed_from = segment_size, timeline, replayed_from
        self._has_target = has_target
        self._account = pwd.getpwnam(os_user) if os_user else None
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="wal")
        self._server = threading.Thread(target=self._serve, name="wal-serve", daemon=True)
        self._ahead: dict[str, Future[_Found | None]] = {}
        self._handed_over: set[str] = set()
        self.errors: list[DrError] = []
        self.failed_at: str | None = None
        """The file that the first of them is about."""
        self.newest_end: Lsn | None = None
        """Where the WAL ends that was handed over so far."""
        self.bytes = 0

    @property
    def restore_command(self) -> str:
        script = shlex.quote(str(self._folder / "fetch.sh"))
        # A shell that cannot read the script, or breaks down in it, ends with 2 or so: that is no proof of absence.
        return (
            f'[ -r {script} ] || exit 207; /bin/sh {script} %f "%p"; code=$?; [ $code -le 1 ] || exit 208; exit $code'
        )

    def __enter__(self) -> WalFetcher:
        for name in ("", "want", "ready", "absent", "failed"):
            self._make(self._folder / name)
        script = self._folder / "fetch.sh"
        script.write_text(_SCRIPT.format(folder=shlex.quote(str(self._folder)), pid=os.getpid()))
        script.chmod(0o755)
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._server.join()
        self._pool.shutdown(cancel_futures=True)

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give(folder)

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def stored_end(self) -> Lsn | None:
        """Where the newest WAL of the timeline ends, over all tiers."""
        return self._wal.end(self._timeline)

    def stored(self, segment: WalSegment) -> FoundWal | None:
        """The segment or the newest head of it. Raises what stood in the way."""
        return self._wal.read(segment)

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                names = sorted(path.name for path in (self._folder / "want").iterdir())
                for name in names:
                    # Before the answer: the same file may be asked for again as soon as that is there.
                    (self._folder / "want" / name).unlink()
                    self._answer(name)
                if not names:
                    self._clock.wait(0.01, self._stop)
        except OSError as error:
            # Nobody can be answered any more; without the folder the script gives up (over 125).
            self.errors.append(RestoreError(f"WAL cannot be handed over through {self._folder}: {error}"))
            shutil.rmtree(self._folder / "want", ignore_errors=True)

    def _answer(self, name: str) -> None:
        try:
            waiting = self._ahead.pop(name, None)
            found = (waiting.result() if waiting is not None else None) or self._find(name)
            if found is not None:
                self._refuse_places_in_use(name, found)
                self._hand_over(name, found)
        except DrError as error:
            self.errors.append(error)
            self.failed_at = self.failed_at or name
            # PostgreSQL reads ahead of its replay. Of WAL behind the target nothing is needed, and a recovery that ends
            # before its target is an error there too: so the end of WAL may be said where it is only out of reach.
            is_behind = isinstance(error, ObjectOffline) and self._has_target
            (self._folder / (_Answer.ABSENT if is_behind else _Answer.FAILED) / name).touch()
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the end of WAL
            self.errors.append(RestoreError(f"fetching WAL file {name} failed: {error!r}"))
            (self._folder / _Answer.FAILED / name).touch()
            return
        if found is None:
            (self._folder / _Answer.ABSENT / name).touch()
        elif is_segment_name(name):
            self._fetch_ahead(WalSegment.parse(name, self.segment_size))

    def _refuse_places_in_use(self, name: str, found: _Found) -> None:
        """Raises `TargetInUse` where replay would make a tablespace in a directory that holds somebody's files. Once a
        segment was handed over, the files are those of replay."""
        if not is_segment_name(name) or name in self._handed_over:
            return
        start = WalSegment.parse(name, self.segment_size).start
        for offset, location in created_tablespaces(found.data):
            if start + offset >= self._replayed_from and _holds_something(Path(location)):
                raise TargetInUse(
                    f"the WAL at {start + offset} creates a tablespace at {location}, which is not empty here: replay "
                    "would write into it",
                    hint="restore on another host, or from a backup that was taken after it was created.",
                )

    def _hand_over(self, name: str, found: _Found) -> None:
        unfinished = self._folder / f"{name}.unfinished"
        unfinished.write_bytes(found.data)
        self._give(unfinished)
        unfinished.rename(self._folder / _Answer.READY / name)
        self._handed_over.add(name)
        self.bytes += len(found.data)
        if found.end is not None:
            self.newest_end = max(found.end, self.newest_end or found.end)

    def _fetch_ahead(self, segment: WalSegment) -> None:
        for _ in range(max(1, min(READ_AHEAD, READ_AHEAD_BYTES // self.segment_size))):
            segment = segment.next()
            if segment.name not in self._ahead:
                self._ahead[segment.name] = self._pool.submit(self._find_now, segment.name)

    def _find_now(self, name: str) -> _Found | None:
        """Ahead of the question. Only what is found is an answer: absence is proven when it is asked for."""
        try:
            found = self._wal.whole(WalSegment.parse(name, self.segment_size))
        except DrError:
            return None
        return None if found is None else _Found(found.data, found.end)

    def _find(self, name: str) -> _Found | None:
        """None is proven absence. Raises what stood in the way."""
        if is_history_name(name):
            return self._history(Timeline.of_history_file(name))
        if not is_segment_name(name):
            return None  # backup history files are for people; nobody stores them
        segment = WalSegment.parse(name, self.segment_size)
        found = self._wal.read(segment)
        if found is None and (later := self._wal.first_after(segment)) is not None:
            found = self._wal.read(segment)  # the stream may have brought both since
            if found is None:
                raise WalGap(
                    f"WAL segment {segment} is missing, and {later} after it is there",
                    hint=f"recover to a target before {segment.start}, or from another tier with --tier.",
                )
        return None if found is None else _Found(found.data, found.end)

    def _history(self, timeline: Timeline) -> _Found | None:
        """A timeline of which there is WAL has a history file; without it recovery would silently go another way."""
        data = self._wal.history(timeline)
        if data is not None:
            return _Found(data)
        if timeline.id == 1 or timeline not in self._wal.timelines():
            return None
        if timeline > self._timeline:
            # Asked for to choose a timeline that is not taken; only that the file exists counts.
            return _Found(b"# dr: this timeline is taken; its history file is not in the repository\n")
        raise WalGap(
            f"the history file of timeline {timeline.id} is missing, and there is WAL of that timeline",
            hint="restore from another tier with --tier, or an older timeline with --timeline.",
        )


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # what cannot be looked into is not known to be empty
