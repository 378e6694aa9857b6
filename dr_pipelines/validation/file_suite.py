"""The suite over the table of a snapshot of files. Pure: a manifest, its columns and a time in; expectations out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.validation.suites import Expectation, Severity, Suite, filled

SNAPSHOT_MEETS_EXPECTATIONS = "snapshot_meets_expectations"


def snapshot_suite(manifest: Snapshot, columns: Mapping[str, Sequence[Any]], now: datetime) -> Suite:
    """`columns` as `files.columns` makes them. A file of the future is shown, and fails nothing: people set times."""
    counts = manifest.counts
    rows = counts.files + counts.directories + counts.links
    files = None if counts.files else "there are no files"
    latest = (now + CLOCK_DRIFT).timestamp()
    return Suite(
        manifest.label,
        (
            _exactly("the table has a row for all that the manifest counts", rows),
            *(
                filled(
                    "path",
                    "every row has a path",
                    Expectation("expect_column_values_to_be_unique", "no path is there twice", {"column": "path"}),
                    Expectation(
                        "expect_column_value_lengths_to_be_between",
                        "no path is empty",
                        {"column": "path", "min_value": 1},
                    ),
                )
                if rows
                else ()
            ),
            _true("is_known_type", "every row is a file, a directory or a link", columns, "there are no rows"),
            Expectation(
                "expect_column_values_to_be_between",
                "no file has a negative size",
                {"column": "size", "min_value": 0},
                skipped=files,
            ),
            Expectation(
                "expect_column_sum_to_be_between",
                "sizes add up to what the manifest counts",
                {"column": "size", "min_value": counts.bytes, "max_value": counts.bytes},
                skipped=files,
            ),
            _true("has_digest", "every file that could be read has a SHA-256", columns, "no file could be read"),
            _true(
                "is_placed", "every content is in an archive that the manifest names", columns, "no file has content"
            ),
            _true("is_within", "every content lies within its archive", columns, "no file has content"),
            Expectation(
                "expect_column_max_to_be_between",
                "no file is of the future",
                {"column": "modified", "max_value": latest},
                Severity.WARNING,
                files
                or (None if any(at is not None for at in columns["modified"]) else "no file says when it was changed"),
            ),
        ),
    )


def _true(column: str, says: str, columns: Mapping[str, Sequence[Any]], none: str) -> Expectation:
    asked = any(value is not None for value in columns[column])
    given = {"column": column, "value_set": [True]}
    return Expectation("expect_column_values_to_be_in_set", says, given, skipped=None if asked else none)


def _exactly(says: str, rows: int) -> Expectation:
    return Expectation("expect_table_row_count_to_be_between", says, {"min_value": rows, "max_value": rows})
