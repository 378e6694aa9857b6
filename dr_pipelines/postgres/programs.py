"""PostgreSQL's programs on the machine that restores."""

from __future__ import annotations

import re
from pathlib import Path

from dr_pipelines.commands import Command, Runner
from dr_pipelines.errors import DrError, RestoreError
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.repository.manifest import BackupManifest


def require_programs(request: RestoreRequest, backup: BackupManifest, runner: Runner) -> Path | None:
    """The folder of PostgreSQL's programs; they are there and of the backup's major version."""
    major = backup.postgres_version_num // 10_000
    bin_dir = request.bin_dir or request.find_bin_dir(major)
    hint = f"install PostgreSQL {major}, or name the folder of its programs with databases.{request.server}.bin_dir."
    try:
        said = runner.run(Command([tools.program("postgres", bin_dir), "--version"], timeout=60)).stdout
    except DrError as error:
        raise RestoreError(f"PostgreSQL {major} cannot be run on this machine: {error.message}", hint=hint) from error
    found = re.search(r"(\d+)", said)
    if found is None or int(found[1]) != major:
        raise RestoreError(f"the backup is of PostgreSQL {major}, and this machine has {said.strip()!r}", hint=hint)
    return bin_dir
