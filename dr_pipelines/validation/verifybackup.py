"""PostgreSQL's own program on the files of a backup, before its server starts and changes them.

What it compares, our restore has compared while it unpacked: this is the second opinion.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import CommandFailed
from dr_pipelines.postgres import backup_manifest, tools
from dr_pipelines.postgres.recover import own
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.wording import counted


def pg_verifybackup_agrees(copy: RestoredCopy) -> CheckResult:
    """`pg_verifybackup` on the files of a full. A chain of incrementals was merged while it was unpacked: no manifest
    of PostgreSQL describes what came of it."""
    name, scratch = "pg_verifybackup_agrees", copy.scratch
    if len(scratch.chain) > 1:
        said = "does not apply: the chain was merged while it was unpacked, each file checked against its manifest"
        return passed(name, said, applies=False, backups=len(scratch.chain))
    repository, host = scratch.source.repository, scratch.host
    data = repository.codec.decode(fetch_verified(repository.store, copy.backup.backup_manifest))
    files = len(backup_manifest.parse(data).files)
    with tempfile.TemporaryDirectory(prefix="dr-") as folder:
        manifest = Path(folder) / "backup_manifest"
        manifest.write_bytes(data)
        own(Path(folder), host.os_user)
        command = tools.pg_verifybackup(scratch.data_dir, manifest, bin_dir=host.bin_dir, user=host.os_user)
        try:
            done = host.runner.run(command, check=False)
        except CommandFailed as error:
            return not_proven(name, f"pg_verifybackup cannot be run here: {error.message}", hint=_INSTALL)
    wrong = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
    if done.returncode == 1 and wrong:
        return failed(
            name, f"pg_verifybackup finds {counted(len(wrong), 'fault')}: {wrong[0]}", wrong=wrong[:10], files=files
        )
    if done.returncode != 0 or "successfully verified" not in done.stdout:
        return not_proven(name, f"pg_verifybackup did not end well (exit code {done.returncode})", hint=_INSTALL)
    return passed(name, f"pg_verifybackup agrees: {counted(files, 'file')}, as in the backup_manifest", files=files)


_INSTALL = "install PostgreSQL's own programs of the backup's version where backups are validated."
