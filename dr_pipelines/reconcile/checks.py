"""What a comparison of rows with files says: one check, and names for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.files.table import shown
from dr_pipelines.reconcile.compare import DIGEST, EXTRA, KINDS, MISSING, SIZE, Comparison
from dr_pipelines.wording import counted

REFERENCES_MATCH = "references_match"
NAMED = 300
"""Of each kind of findings so many are named; all are counted."""
_SAID = {
    MISSING: ("row without its file", "rows without their file"),
    EXTRA: ("file without a row", "files without a row"),
    SIZE: ("file of another size than its row says", "files of another size than their row says"),
    DIGEST: ("file of another content than its row says", "files of another content than their row says"),
}


def references_match(found: Comparison, *, against: str, doubtful: Collection[str] = ()) -> CheckResult:
    """`against`: what the rows were held against. Findings of `doubtful` kinds prove nothing: the rows are of another
    time than the files."""
    counts = found.counts
    details = {
        "rows": found.rows,
        "files": found.files,
        "contents_compared": found.digests,
        **counts,
        "unseen": found.unseen,
        "undigested": found.undigested,
        "without_sha256": found.unusable,
        "findings": named(found),
    }
    said = ", ".join(f"{count:,} {_SAID[kind][count != 1]}" for kind, count in counts.items() if count)
    seen = f"{counted(found.rows, 'row')} against {counted(found.files, 'file')} of {against}"
    if any(count for kind, count in counts.items() if kind not in doubtful):
        return failed(REFERENCES_MATCH, f"{seen}: {said}", **details)
    if said:
        why = "the rows may be of another time: look at a database of that time (--database-at)"
        return not_proven(REFERENCES_MATCH, f"{seen}: {said}; {why}", **details)
    if not found.rows:
        return not_proven(REFERENCES_MATCH, f"no rows were seen, so {against} proves nothing", **details)
    if unproven := _unproven(found):
        return not_proven(REFERENCES_MATCH, f"{seen}: {unproven}", **details)
    compared = f"; contents of {found.digests:,} compared" if found.digests else ""
    return passed(REFERENCES_MATCH, f"{seen} agree{compared}", **details)


def _unproven(found: Comparison) -> str:
    told = {
        "files of {} rows could not be looked at": found.unseen,
        "the digests of {} rows could not be compared": found.undigested,
        "{} rows have no SHA-256 where one should be": found.unusable,
    }
    return ", ".join(text.format(f"{count:,}") for text, count in told.items() if count)


def named(found: Comparison) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The first findings of each kind, as plain values."""
    listed: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    kinds = found.findings["kind"].to_pylist()
    for place, kind in enumerate(kinds):
        if len(listed[kind]) < NAMED:
            (row,) = found.findings.slice(place, 1).to_pylist()
            listed[kind].append({name: _plain(name, value) for name, value in row.items() if value is not None})
    return {kind: rows for kind, rows in listed.items() if rows}


def _plain(name: str, value: Any) -> Any:
    """A digest in hex, a path for people."""
    return value if not isinstance(value, bytes) else value.hex() if name.endswith("sha256") else shown(value)
