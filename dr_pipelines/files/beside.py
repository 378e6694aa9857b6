"""How the files of a snapshot differ from those of one before, as numbers. What is unusual is not said here.

A snapshot that follows within minutes differs by little, whatever goes on. So polls, and the snapshot of everything
that ends them, are held against a `Baseline` too: what they changed adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import NO, flat, number, text
from dr_pipelines.files.table import FILE, beside, chosen, not_at

COMPRESSES = 80
"""In percent: a content of which no more is left compresses."""
INCOMPRESSIBLE = 97


_COUNTED = ["path", "type", "sha256", "compresses_to"]
_LABEL = b"label"


@dataclass(frozen=True)
class Baseline:
    """The last snapshot that looked at everything; or one since that was found unusual, for what it changed is told and
    would be told of all that follow. `rows`: of all its columns those that are counted by, and its label."""

    rows: pa.Table

    @property
    def label(self) -> str:
        return str(self.rows.schema.metadata[_LABEL].decode())


def baseline_of(label: str, rows: pa.Table) -> Baseline:
    return Baseline(rows.select(_COUNTED).replace_schema_metadata({_LABEL: label.encode()}))


@dataclass(frozen=True)
class Differences:
    """From the snapshot `beside`. Of `before` files that there were: `changed` have another content under their name;
    `vanished` are gone, and nothing has their content any more; `moved` are gone, and it is there under another name.
    `renamed` have become new files with the `ending` that most of them have, in place of their own or behind it. Of
    `compressible` files that compressed before and are still there, `incompressible` do not any more."""

    beside: str
    before: int
    changed: int = 0
    vanished: int = 0
    moved: int = 0
    renamed: int = 0
    ending: str | None = None
    compressible: int = 0
    incompressible: int = 0


def differences(baseline: Baseline, after: pa.Table) -> Differences:
    """`after` are all rows of a snapshot. What could not be read has not changed: it is told elsewhere."""
    before = baseline.rows
    here = beside(before, after, ["sha256", "compresses_to"])
    both = pc.and_(here.is_file, here.was_file)
    changed = pc.and_(both, pc.fill_null(pc.not_equal(after["sha256"], here.old["sha256"]), NO))
    gone = not_at(before.select(["path", "type", "sha256"]), here.places.filter(flat(here.is_file)))
    gone = chosen(gone, pc.equal(gone["type"], text(FILE)))
    come = chosen(after.select(["path", "sha256"]), pc.and_(here.is_file, pc.invert(here.was_file)))
    moved = _sum(pc.and_(pc.is_valid(gone["sha256"]), pc.is_in(gone["sha256"], value_set=_digests(come))))
    renamed, ending = _renamed(gone["path"].to_pylist(), come["path"].to_pylist())
    compressed = pc.and_(both, pc.fill_null(pc.less_equal(here.old["compresses_to"], number(COMPRESSES)), NO))
    turned = pc.fill_null(pc.greater_equal(after["compresses_to"], number(INCOMPRESSIBLE)), NO)
    return Differences(
        beside=baseline.label,
        before=_sum(pc.equal(before["type"], text(FILE))),
        changed=_sum(changed),
        vanished=len(gone) - moved,
        moved=moved,
        renamed=renamed,
        ending=ending,
        compressible=_sum(compressed),
        incompressible=_sum(pc.and_(compressed, turned)),
    )


def _digests(table: pa.Table) -> pa.Array:
    return flat(table["sha256"]).drop_null()


def _sum(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _renamed(gone: Iterable[bytes], come: Iterable[bytes]) -> tuple[int, str | None]:
    """`a.docx` is gone, and `a.docx.locked` or `a.locked` has come: how many, and with which ending most of them."""
    names = {*gone}
    stems = {name: name for name in names} | {_split(name)[0]: name for name in names}
    endings: dict[bytes, set[bytes]] = {}
    for path in come:
        stem, ending = _split(path)
        if ending and stem in stems:
            endings.setdefault(ending, set()).add(stems[stem])
    if not endings:
        return 0, None
    [(most, number)] = Counter({ending: len(them) for ending, them in endings.items()}).most_common(1)
    return number, "." + most.decode(errors="backslashreplace")


def _split(path: bytes) -> tuple[bytes, bytes]:
    """A path without its ending, and the ending without its dot; `.profile` has none."""
    stem, dot, ending = path.rpartition(b".")
    return (stem, ending) if dot and stem and not stem.endswith(b"/") and b"/" not in ending else (path, b"")
