"""Where scratch servers are made on this machine."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.errors import RestoreError
from dr_pipelines.postgres.restore_target import clear_leftovers, require_entry
from dr_pipelines.site import Site


def scratch_folder(site: Site, server: str, os_user: str | None, given: Path | None = None) -> Path:
    """The folder that is `given`, or that the plan names, or in this host's state: it is there, the account that the
    server runs as can enter it, and what killed runs left in it is gone. Raises `RestoreError`."""
    planned = given or site.plan_of(server).validation.scratch_dir
    folder = (planned / server if planned is not None else site.state_dir / server / "scratch").absolute()
    _make_open(folder)
    try:
        require_entry(folder, os_user, site.runner)
    except RestoreError as error:
        error.hint = f"{error.hint} `databases.{server}.validation.scratch_dir` of the plan names it."
        raise
    clear_leftovers(folder)
    return folder


def _make_open(folder: Path) -> None:
    """What is made here can be passed through by the server's account, whatever the umask. Raises `RestoreError`."""
    try:
        for place in (*reversed(folder.parents), folder):
            if not place.exists():
                place.mkdir()
                place.chmod(0o711)
    except OSError as error:
        raise RestoreError(
            f"{folder} cannot be made: {error.strerror}",
            hint="name another place with `validation.scratch_dir` in the plan.",
        ) from error
