"""Suites over what a repository says of itself: the objects of a backup, the catalog, and each backup beside those
before it. Pure: manifests, a listing and a time in; rows and expectations out.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.plan.model import BackupSchedulePlan
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.due import Window, newest_due
from dr_pipelines.repository.layout import BackupKind, parse_label
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.validation.suites import Expectation, Severity, Suite, filled, not_empty

Rows = list[dict[str, Any]]

MANIFEST_MEETS_EXPECTATIONS = "manifest_meets_expectations"
CATALOG_MEETS_EXPECTATIONS = "catalog_meets_expectations"
SIZE_IS_AS_USUAL = "size_is_as_usual"

FEWEST_BEFORE, MOST_BEFORE = 3, 7
"""Of how many earlier backups the median is taken: fewer say nothing, and a lasting change is usual after four more."""
FACTOR = 3.0
"""A third of the usual is a loss until somebody says otherwise, thrice the usual is looked at too."""
COMPRESSES_WELL = 1.5
"""A median ratio from which on it can be noticed that data no longer compresses."""
_LONGER_THAN_USUAL = timedelta(minutes=1)


# --- the objects of a backup --------------------------------------------------------------------------------


def object_rows(backup: BackupManifest, listed: Mapping[str, int]) -> Rows:
    """A row an object that the manifest names. `listed`: sizes in the store, by key."""
    packs = {pack.key for pack in backup.archive.packs}
    return [
        {
            "key": named.key,
            "size": named.size,
            "listed": listed.get(named.key),
            "sha256": named.sha256,
            "pack": backup.layout.pack_number(named.key) if named.key in packs else None,
        }
        for named in backup.objects
    ]


def object_suite(backup: BackupManifest, rows: Rows) -> Suite:
    archive = backup.archive
    packs = -(-archive.size // archive.pack_size)
    stored = sum(row["listed"] or 0 for row in rows)
    return Suite(
        backup.label,
        (
            not_empty("the manifest names objects"),
            *filled(
                "key",
                "every object has a key",
                Expectation("expect_column_values_to_be_unique", "no key is there twice", {"column": "key"}),
                Expectation(
                    "expect_column_values_to_match_regex",
                    "every key is one of this backup",
                    {"column": "key", "regex": backup.layout.content_pattern},
                ),
            ),
            *filled(
                "sha256",
                "every object has a digest",
                Expectation(
                    "expect_column_values_to_match_regex",
                    "every digest is a SHA-256",
                    {"column": "sha256", "regex": "^[0-9a-f]{64}$"},
                ),
            ),
            *filled(
                "listed",
                "every object is in the store",
                Expectation(
                    "expect_column_pair_values_to_be_equal",
                    "every object has its size in the store",
                    {"column_A": "size", "column_B": "listed", "ignore_row_if": "either_value_is_missing"},
                ),
            ),
            _between("size", "no object is empty", 1),
            Expectation(
                "expect_column_sum_to_be_between",
                "sizes add up to what the store holds",
                {"column": "size", "min_value": stored, "max_value": stored},
            ),
            *_packs_without_gap(packs),
        ),
    )


def _packs_without_gap(packs: int) -> tuple[Expectation, ...]:
    """An archive of so many packs, by its raw size, has the numbers 0 to `packs` - 1, each once."""
    last = {"min_value": packs - 1, "max_value": packs - 1}
    return (
        Expectation("expect_column_values_to_be_unique", "no pack's number is there twice", {"column": "pack"}),
        Expectation("expect_column_min_to_be_between", "packs begin at 0", {"column": "pack", **_exactly(0)}),
        Expectation("expect_column_max_to_be_between", "packs end where the archive does", {"column": "pack", **last}),
        Expectation(
            "expect_column_unique_value_count_to_be_between",
            "no pack's number is left out",
            {"column": "pack", **_exactly(packs)},
        ),
    )


# --- the catalog --------------------------------------------------------------------------------------------


def catalog_rows(catalog: Catalog) -> Rows:
    """A row a backup. Sizes in bytes, LSNs as numbers, times as sortable text in UTC; `stop_before` is the stop LSN of
    the one that ended before it, of the same system on the same timeline."""
    known = {*(backup.label for backup in catalog.backups), *(gone.manifest.label for gone in catalog.expired)}
    before: dict[tuple[str, int], int] = {}
    rows: Rows = []
    for backup in sorted(catalog.backups, key=lambda one: (one.finished_at, one.label)):
        line = (backup.system_id, backup.timeline.id)
        rows.append(
            {
                "label": backup.label,
                "kind": str(backup.kind),
                "kind_in_label": str(parse_label(backup.label)[1]),
                "timeline": backup.timeline.id,
                "start": backup.start_lsn.value,
                "stop": backup.stop_lsn.value,
                "stop_before": before.get(line),
                "started_at": _text(backup.started_at),
                "finished_at": _text(backup.finished_at),
                "raw": backup.archive.size,
                "stored": backup.stored_size,
                "has_parent": _has_parent(backup, known),
                "full_started_at": _text(backup.started_at) if backup.kind is BackupKind.FULL else None,
            }
        )
        before[line] = max(backup.stop_lsn.value, before.get(line, 0))
    return rows


def _has_parent(backup: BackupManifest, known: set[str]) -> bool | None:
    """Whether what it builds on is there; None for a full, which builds on nothing."""
    if backup.kind is BackupKind.FULL:
        return None if backup.parent is None else False
    return backup.parent is not None and backup.parent in known and backup.parent != backup.label


def catalog_suite(
    server: str, rows: Rows, schedule: BackupSchedulePlan | None, now: datetime, *, hourly_points_are_wal: bool = False
) -> Suite:
    """`schedule`: None on a tier that backups are copied to, where another check says what is late."""
    follow = sum(row["stop_before"] is not None for row in rows)
    builds = sum(row["has_parent"] is not None for row in rows)
    return Suite(
        f"the catalog of {server}",
        (
            not_empty("there are backups"),
            *filled(
                "label",
                "every backup has a label",
                Expectation("expect_column_values_to_be_unique", "no label is there twice", {"column": "label"}),
            ),
            Expectation(
                "expect_column_pair_values_to_be_equal",
                "every backup is of the kind that its label says",
                {"column_A": "kind", "column_B": "kind_in_label"},
            ),
            _between("raw", "every backup holds bytes", 1),
            _between("stored", "every backup stores bytes", 1),
            _not_before("stop", "start", "no backup stops before the LSN that it starts at"),
            _not_before("finished_at", "started_at", "no backup ends before it begins"),
            _not_before(
                "stop",
                "stop_before",
                "on one timeline a backup that ends later stops at a later LSN",
                skipped=None if follow else "no timeline has two backups",
            ),
            Expectation(
                "expect_column_values_to_be_in_set",
                "what an incremental builds on is there",
                {"column": "has_parent", "value_set": [True]},
                skipped=None if builds else "there are no incrementals",
            ),
            Expectation(
                "expect_column_max_to_be_between",
                "no backup is of the future",
                {"column": "started_at", "max_value": _text(now + CLOCK_DRIFT)},
            ),
            *(_coverage(schedule, now, hourly_points_are_wal) if schedule is not None else ()),
        ),
    )


def _coverage(schedule: BackupSchedulePlan, now: datetime, hourly_points_are_wal: bool) -> tuple[Expectation, ...]:
    """The newest of a kind is not older than the schedule permits; a full serves where an incremental was due."""
    full = newest_due(schedule.full.cron, schedule.full.interval, Window.DAY, now)
    fulls = Expectation(
        "expect_column_max_to_be_between",
        "the newest full is not older than the schedule permits",
        {"column": "full_started_at", "min_value": _text(full.start)},
    )
    if schedule.incremental is None:
        return (fulls,)
    hourly = newest_due(schedule.incremental.cron, schedule.incremental.interval, Window.HOUR, now)
    return (
        fulls,
        Expectation(
            "expect_column_max_to_be_between",
            "the newest backup is not older than the schedule permits",
            {"column": "started_at", "min_value": _text(hourly.start)},
            skipped="hourly points are sealed WAL below PostgreSQL 17" if hourly_points_are_wal else None,
        ),
    )


# --- as usual? ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usual:
    """Medians of earlier backups of one kind: sizes in bytes, `seconds`, `ratio` of raw to stored."""

    count: int
    raw: float
    stored: float
    seconds: float
    ratio: float


def usual_before(backup: BackupManifest, backups: Sequence[BackupManifest]) -> Usual | None:
    """Of the last few that were taken before it, of its kind and system; None when there are too few to say."""
    earlier = [
        other
        for other in sorted(backups, key=lambda one: one.started_at)
        if other.kind is backup.kind and other.system_id == backup.system_id and other.started_at < backup.started_at
    ][-MOST_BEFORE:]
    if len(earlier) < FEWEST_BEFORE:
        return None
    rows = [size_row(other) for other in earlier]
    raw, stored, seconds, ratio = (
        statistics.median(row[name] for row in rows) for name in ("raw", "stored", "seconds", "ratio")
    )
    return Usual(len(earlier), raw, stored, seconds, ratio)


def size_row(backup: BackupManifest) -> dict[str, Any]:
    packs = backup.archive.stored_size
    return {
        "label": backup.label,
        "raw": backup.archive.size,
        "stored": packs,
        "seconds": (backup.finished_at - backup.started_at).total_seconds(),
        "ratio": backup.archive.size / packs if packs else 0.0,
    }


def size_suite(backup: BackupManifest, usual: Usual | None) -> Suite:
    """One backup beside the median of those before it. Fulls of one server are alike, so a full that is not is a
    failure; incrementals hold what changed, so theirs are only shown, unless they no longer compress."""
    too_few = None if usual else f"fewer than {FEWEST_BEFORE} earlier backups of its kind"
    found = usual or Usual(0, 0, 0, 0, 0)
    severity = Severity.CRITICAL if backup.kind is BackupKind.FULL else Severity.WARNING
    hardly = f"its kind usually compresses to no less than {1 / COMPRESSES_WELL:.0%}"
    return Suite(
        backup.label,
        (
            *(
                Expectation(
                    "expect_column_max_to_be_between",
                    f"the {name} size is not a third of the usual, nor thrice (a loss, or data that was encrypted)",
                    {
                        "column": column,
                        "min_value": median / FACTOR,
                        "max_value": median * FACTOR,
                        "strict_min": True,
                        "strict_max": True,
                    },
                    severity,
                    too_few,
                )
                for name, column, median in (("raw", "raw", found.raw), ("stored", "stored", found.stored))
            ),
            Expectation(
                "expect_column_max_to_be_between",
                "it compresses as usual (an attacker's encryption does not compress)",
                {"column": "ratio", "min_value": half_incompressible(found.ratio)},
                skipped=too_few or (None if found.ratio >= COMPRESSES_WELL else hardly),
            ),
            Expectation(
                "expect_column_max_to_be_between",
                "it did not take thrice as long as usual",
                {
                    "column": "seconds",
                    "max_value": max(FACTOR * found.seconds, found.seconds + _LONGER_THAN_USUAL.total_seconds()),
                },
                Severity.WARNING,
                too_few,
            ),
        ),
    )


def half_incompressible(ratio: float) -> float:
    """The ratio that is left when half of what usually compresses to 1/`ratio` does not compress at all."""
    return 2 * ratio / (ratio + 1)


# --- shorter to write ---------------------------------------------------------------------------------------


def _between(column: str, says: str, low: int) -> Expectation:
    return Expectation("expect_column_values_to_be_between", says, {"column": column, "min_value": low})


def _not_before(later: str, earlier: str, says: str, skipped: str | None = None) -> Expectation:
    given = {"column_A": later, "column_B": earlier, "or_equal": True, "ignore_row_if": "either_value_is_missing"}
    return Expectation("expect_column_pair_values_a_to_be_greater_than_b", says, given, skipped=skipped)


def _exactly(number: int) -> dict[str, int]:
    return {"min_value": number, "max_value": number}


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
