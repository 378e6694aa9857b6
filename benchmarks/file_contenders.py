"""Those who take and restore snapshots of files in the benchmark: this project, restic, borg. Each is a program in a
process of its own, encrypts and compresses, and keeps its repository, cache and secrets in one folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from benchmarks.contenders import folder_size
from dr_pipelines import __version__
from dr_pipelines.commands import Command, Runner
from dr_pipelines.repository.encryption import generate_identity

METER = Path(__file__).with_name("meter.py")
PASSWORD = "correct horse battery staple"
SET = "assets"


@dataclass(frozen=True)
class Took:
    """Of one program: seconds on the clock and of CPU, and its peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def run(argv: list[str], *, cwd: Path, env: Mapping[str, str]) -> Took:
    metered = [sys.executable, "-I", "-S", str(METER), *argv]
    return Took(**json.loads(Runner().run(Command(metered, env=env, cwd=cwd)).stdout))


class FileContender(Protocol):
    """`start` makes an empty repository, and `snapshot` adds to it; `restore` brings the newest snapshot into `target`,
    which is not there yet. `stored` is the size of the repository in bytes."""

    name: str

    def version(self) -> str: ...
    def start(self) -> None: ...
    def snapshot(self) -> Took: ...
    def restore(self, target: Path) -> Took: ...
    def stored(self) -> int: ...


class Ours:
    name = "dr"

    def __init__(self, source: Path, base: Path) -> None:
        self._source, self._folder = source, base / "dr"
        self._dr = str(Path(sys.executable).with_name("dr"))

    def version(self) -> str:
        return f"dr {__version__}"

    def start(self) -> None:
        _empty(self._folder)
        (self._folder / "plan.yaml").write_text(yaml.dump(self._plan()))
        self._run("repository", "init")

    def snapshot(self) -> Took:
        return self._run("files", "snapshot", SET)

    def restore(self, target: Path) -> Took:
        return self._run("files", "restore", SET, "latest", str(target))

    def stored(self) -> int:
        return folder_size(self._folder / "repository")

    def _run(self, *words: str) -> Took:
        return run([self._dr, "--plan", str(self._folder / "plan.yaml"), *words], cwd=self._folder, env={})

    def _plan(self) -> dict[str, object]:
        identity = generate_identity()
        (self._folder / "identity.txt").write_text(identity.reveal())
        return {
            "version": 1, "name": "bench", "state_dir": str(self._folder / "state"),
            "encryption": {
                "recipients": [str(identity.recipient)], "identity": f"${{FILE:{self._folder}/identity.txt}}",
            },
            "storage": {"here": {"type": "local", "path": str(self._folder / "repository")}},
            "file_storage": {SET: {
                "schedule": "daily", "retention": "90 days", "storage": {"primary": "here"},
                "source": {"type": "directory", "path": str(self._source)},
            }},
        }  # fmt: skip


class Restic:
    """Its format 2, in which `auto` is the default: zstd at its default level, and what does not shrink stays as is."""

    name = "restic"

    def __init__(self, source: Path, base: Path) -> None:
        self._source, self._folder = source, base / "restic"
        self._env = {
            "RESTIC_REPOSITORY": str(self._folder / "repository"),
            "RESTIC_CACHE_DIR": str(self._folder / "cache"),
            "RESTIC_PASSWORD": PASSWORD,
        }

    def version(self) -> str:
        return Runner().run(Command(["restic", "version"])).stdout.partition(" compiled")[0]

    def start(self) -> None:
        _empty(self._folder)
        self._run("init", "--repository-version", "2")

    def snapshot(self) -> Took:
        return self._run("backup", "--compression", "auto", ".")

    def restore(self, target: Path) -> Took:
        return self._run("restore", "latest", "--target", str(target))

    def stored(self) -> int:
        return folder_size(self._folder / "repository")

    def _run(self, *words: str) -> Took:
        return run(["restic", "--quiet", *words], cwd=self._source, env=self._env)


class Borg:
    """BLAKE2 and AES, which is its faster way; zstd at level 1, as ours."""

    name = "borg"

    def __init__(self, source: Path, base: Path) -> None:
        self._source, self._folder = source, base / "borg"
        self._env = {
            "BORG_REPO": str(self._folder / "repository"),
            "BORG_BASE_DIR": str(self._folder / "base"),
            "BORG_PASSPHRASE": PASSWORD,
        }
        self._count = 0

    def version(self) -> str:
        return Runner().run(Command(["borg", "--version"])).stdout.strip()

    def start(self) -> None:
        _empty(self._folder)
        self._run("init", "--encryption", "repokey-blake2", cwd=self._source)

    def snapshot(self) -> Took:
        self._count += 1
        return self._run("create", "--compression", "zstd,1", f"::{self._count}", ".", cwd=self._source)

    def restore(self, target: Path) -> Took:
        target.mkdir()
        return self._run("extract", f"::{self._count}", cwd=target)

    def stored(self) -> int:
        return folder_size(self._folder / "repository")

    def _run(self, *words: str, cwd: Path) -> Took:
        return run(["borg", *words], cwd=cwd, env=self._env)


def contenders(names: list[str], source: Path, base: Path) -> tuple[list[FileContender], list[str]]:
    """Those of `names` that are installed, and those that are not."""
    there = [one for one in (Ours, Restic, Borg) if one.name in names]
    missing = [one.name for one in there if one is not Ours and not shutil.which(one.name)]
    return [one(source, base) for one in there if one.name not in missing], missing


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
