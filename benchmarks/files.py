"""`make bench`: snapshots of a tree of files and their restore, beside restic and borg from Debian's packages.

Machines differ and are shared: only the ratios within one run mean anything. Each figure is the median of some rounds,
in which the contenders take turns. A round begins with empty repositories, whose making is not counted; repositories,
caches, source and target are on one disk. The page cache is warm for all: the whole source is read before each
snapshot, for borg drops what it has read; what was written reaches the disk before the next one begins, and memory has
just been in use. Each contender is a program in a process of its own that encrypts, compresses and does by itself what
it does to make its writes last. What each restored is compared with the source: contents, modes, times, links. It stays
until the end: a file system that has just lost as many files makes new ones slowly (ext4 passes over inodes that were
in use of late), whoever asks. Who is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from benchmarks.file_contenders import FileContender, Ours, Restic, Took, contenders
from benchmarks.file_tree import LARGE, LARGE_FILES, Tree, described
from dr_pipelines.commands import Command, Runner

MEAN = 17_500
FIRST, UNCHANGED, CHANGED, RESTORE = "first snapshot", "nothing changed", "1 % changed", "restore"
SNAPSHOTS = (FIRST, UNCHANGED, CHANGED)
STEPS = (*SNAPSHOTS, RESTORE)
MOST_TIME = {FIRST: 0.8, UNCHANGED: 0.5, RESTORE: 0.8}
MOST_BYTES = 1.0
"""Of restic's."""
MOST_MEMORY = 400_000_000
AT_HAND = 3 << 30
"""Bytes of memory that were in use just before each step."""


@dataclass
class Results:
    """One of each a round, by what was done and by whom; the repository's bytes are those of the last round."""

    took: dict[tuple[str, str], list[Took]] = field(default_factory=lambda: defaultdict(list))
    stored: dict[tuple[str, str], int] = field(default_factory=dict)

    def median(self, what: str, who: str, kind: Callable[[Took], float]) -> float:
        return statistics.median(kind(one) for one in self.took[what, who])

    def wall(self, what: str, who: str) -> float:
        return self.median(what, who, lambda one: one.wall)

    def spread(self, what: str, who: str) -> str:
        times = [one.wall for one in self.took[what, who]]
        return f"{min(times):.2f} to {max(times):.2f}"

    def cpu(self, what: str, who: str) -> float:
        return self.median(what, who, lambda one: one.cpu)

    def peak(self, what: str, who: str) -> float:
        return self.median(what, who, lambda one: one.peak)

    def size(self, what: str, who: str) -> float:
        """0 after what stores nothing."""
        return self.stored.get((what, who), 0)


def measure(tree: Tree, source: Path, order: list[FileContender], targets: Path, results: Results) -> None:
    """One round. Each restores into a folder of `targets`, which is there and empty."""

    def snapshots(what: str) -> None:
        for one in order:
            settle()
            described(source)
            results.took[what, one.name].append(one.snapshot())
            results.stored[what, one.name] = one.stored()

    for one in order:
        one.start()
    snapshots(FIRST)
    snapshots(UNCHANGED)
    tree.change()
    expected = described(source)
    snapshots(CHANGED)
    for one in order:
        settle()
        results.took[RESTORE, one.name].append(one.restore(targets / one.name))
        prove(one.name, expected, described(targets / one.name))


def settle() -> None:
    """The same state for whoever comes next: all is on disk, and memory is at hand. A virtual machine gives back what
    is free to its host, and has it anew at several times the cost, so who follows a long pause would pay for it."""
    os.sync()
    Runner().run(Command([sys.executable, "-c", f"b'1' * {AT_HAND}"]))


def prove(name: str, expected: dict[str, tuple[object, ...]], restored: dict[str, tuple[object, ...]]) -> None:
    wrong = sorted(path for path in expected.keys() | restored.keys() if expected.get(path) != restored.get(path))
    if wrong:
        shown = "\n".join(f"{path!r}: {expected.get(path)}, restored {restored.get(path)}" for path in wrong[:5])
        raise SystemExit(f"{name} restored {len(wrong)} otherwise than they are:\n{shown}")


def figures(results: Results, names: list[str], title: str) -> Table:
    shown = Table("what", "by", "time", "least to most", "CPU", "peak memory", "repository", title=title)
    for what in STEPS:
        for name in names:
            shown.add_row(
                what if name == names[0] else "", name,
                f"{results.wall(what, name):.2f} s", results.spread(what, name), f"{results.cpu(what, name):.2f} s",
                decimal(int(results.peak(what, name))), decimal(int(results.size(what, name))) if what in SNAPSHOTS else "",
                end_section=name == names[-1],
            )  # fmt: skip
    return shown


def ratios(results: Results, others: list[str]) -> Table:
    """Ours to theirs."""
    kinds = {"time": results.wall, "CPU": results.cpu, "bytes": results.size}
    shown = Table("of", *(f"{name}'s {kind}" for name in others for kind in kinds))
    for what in STEPS:
        pairs = [(told(what, Ours.name), told(what, name)) for name in others for told in kinds.values()]
        shown.add_row(what, *(f"{ours / theirs:.2f}" if theirs else "" for ours, theirs in pairs))
    return shown


def judged(results: Results) -> Iterator[str]:
    """The goals, beside restic."""

    def ratio(told: Callable[[str, str], float], what: str) -> float:
        return told(what, Ours.name) / told(what, Restic.name)

    bytes_more = max(ratio(results.size, what) for what in SNAPSHOTS)
    peak = max(results.peak(what, Ours.name) for what in STEPS)
    for what, value, most in (
        *((f"{what}, of restic's time", ratio(results.wall, what), most) for what, most in MOST_TIME.items()),
        ("the repository, of restic's bytes", bytes_more, MOST_BYTES),
        ("peak memory in MB", peak / 1e6, MOST_MEMORY / 1e6),
    ):
        yield f"{'met' if value <= most else 'missed':6}  {what}: {value:.2f}, at most {most:g}"


def show(results: Results, names: list[str], title: str, console: Console) -> None:
    console.print(figures(results, names, title))
    if Ours.name in names and len(names) > 1:
        console.print(ratios(results, [name for name in names if name != Ours.name]))
    if {Ours.name, Restic.name} <= {*names}:
        console.print(*judged(results), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument(
        "--megabytes", type=int, help=f"of all of them, without {LARGE_FILES} large ones; default 17.5 KB a file"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="dr,restic,borg", help="who takes part")
    asked = parser.parse_args()
    megabytes = asked.megabytes or asked.files * MEAN // 1_000_000
    console, results, before = Console(width=150), Results(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="dr-bench-") as base:
        source = Path(base) / "source"
        taking_part, missing = contenders(asked.only.split(","), source, Path(base))
        for name in missing:
            console.print(f"{name} is left out: it is not installed")
        tree = Tree(source, asked.files, megabytes)
        for turn in range(asked.rounds):
            begin = turn % len(taking_part)
            targets = Path(base) / f"restored-{turn}"
            targets.mkdir()
            measure(tree, source, taking_part[begin:] + taking_part[:begin], targets, results)
    large = f"{LARGE_FILES} of {LARGE // 1_000_000} MB"
    title = f"{asked.files:,} files of {megabytes} MB, {large}, medians of {asked.rounds}"
    show(results, [one.name for one in taking_part], title, console)
    versions = ", ".join(one.version() for one in taking_part)
    console.print(f"{versions}; load {before:.1f} to {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
