"""`make mutation`: is whatever is damaged noticed? Exits with 1 when something was not, or when a good one alarms."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from dr_pipelines.embedded.postgres import open_folder
from tests.mutation.copy_trials import CopyTrials, cases, file_cases
from tests.mutation.file_home import good_files
from tests.mutation.file_trials import FileTrials, file_flips
from tests.mutation.flips import flips
from tests.mutation.home import good_home
from tests.mutation.ledger import Ledger
from tests.mutation.locks import lock_trials
from tests.mutation.repository_trials import RepositoryTrials
from tests.support.amcheck import programs_with_amcheck


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed damages the same things")
    parser.add_argument(
        "--count",
        type=int,
        default=300,
        help="damages: half of repositories, half of copies; and half as many of files",
    )
    parser.add_argument(
        "--flips", type=int, default=500, help="single bytes changed before scrubs and restores; of files half"
    )
    parser.add_argument("--only", choices=("repositories", "copies", "flips", "files"), help="one part of it")
    asked = parser.parse_args()
    console = Console(width=170)
    began = time.monotonic()
    ledgers: list[Ledger] = []

    def done(ledger: Ledger) -> None:
        ledgers.append(ledger)
        console.print(ledger.table())
        for line in (*ledger.alarms, *(f"not noticed: {hole.kind}: {hole.what}" for hole in ledger.holes)):
            console.print(line, style="bold red")

    if asked.only in (None, "repositories", "flips"):
        with good_home() as home:
            if asked.only != "flips":
                done(RepositoryTrials(home, random.Random(asked.seed)).run(asked.count // 2, console.print))
                done(lock_trials(random.Random(asked.seed)))
            if asked.only != "repositories":
                done(flips(home, random.Random(asked.seed), asked.flips, console.print))
    if asked.only in (None, "files"):
        with good_files() as files:
            done(FileTrials(files, random.Random(asked.seed)).run(asked.count // 2, console.print))
            done(file_flips(files, random.Random(asked.seed), asked.flips // 2, console.print))
    if asked.only in (None, "copies"):
        for ledger in _copies(random.Random(asked.seed), asked.count - asked.count // 2, console):
            done(ledger)
    tried = sum(len(ledger.counted) for ledger in ledgers)
    seen = sum(trial.detected for ledger in ledgers for trial in ledger.counted)
    good = sum(ledger.good for ledger in ledgers)
    alarms = sum(len(ledger.alarms) for ledger in ledgers)
    console.print(
        f"seed {asked.seed}: {seen} of {tried} damages were noticed, good ones were looked at {good} times with "
        f"{alarms} false alarms; {time.monotonic() - began:.0f} s"
    )
    return 0 if all(ledger.passed for ledger in ledgers) else 1


def _copies(rng: random.Random, count: int, console: Console) -> list[Ledger]:
    """With page checksums, as PostgreSQL 18 makes servers; and files once more without."""
    folder = open_folder("dr-amcheck-")
    try:
        programs = _amcheck(folder)
        if programs is None:
            console.print("amcheck is not installed: indexes are judged without it, and only with page checksums")
        ledgers = [CopyTrials(rng, programs=programs).run(cases(rng, count), console.print)]
        if programs is not None:
            ledgers.append(CopyTrials(rng, checksums=False, programs=programs).run(file_cases(rng), console.print))
        return ledgers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _amcheck(folder: Path) -> Path | None:
    try:
        return programs_with_amcheck(folder)
    except pytest.skip.Exception:
        return None


if __name__ == "__main__":
    sys.exit(main())
