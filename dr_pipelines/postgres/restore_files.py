"""The files of a chain onto a disk: a data directory that is whole and has not been replayed yet."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.recover import own
from dr_pipelines.postgres.restore_plan import Candidate
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_target import claim_tablespace, clear_tablespace, release_tablespace, require_room
from dr_pipelines.postgres.tablespaces import bytes_by_place, default_folder, new_locations
from dr_pipelines.postgres.unpack import PG_CONTROL, Link, sync_tree, unpack_chain
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import BackupManifest, Tablespace
from dr_pipelines.repository.repository import Repository


class RestoredFiles:
    """One attempt to bring a chain into `folder`, which must not be there. `note` is told where tablespaces go."""

    def __init__(self, request: RestoreRequest, folder: Path, note: Callable[[str], None]) -> None:
        self.folder = folder
        self._request, self._note = request, note
        self._spaces: list[Path] = []

    def unpack(
        self, repository: Repository, candidate: Candidate, advance: Callable[[int], None], *, spare: int = 0
    ) -> bytes:
        """Everything but pg_control, which is returned. `spare` bytes of the disk must be left over. Raises
        `IntegrityError`, `HostTooSmall` and what the store raises."""
        links, locations = self._links(repository, candidate)
        self._require_room(links, locations, spare)
        self.folder.mkdir(parents=True, mode=0o700)
        self._prepare_tablespaces(locations)
        return unpack_chain(links, self.folder, advance=advance)

    def sync(self, control: bytes) -> None:
        """On disk, all of it; then pg_control."""
        (self.folder / "pg_wal" / "archive_status").mkdir(parents=True, exist_ok=True)
        sync_tree(self.folder)
        (self.folder / PG_CONTROL).write_bytes(control)
        (self.folder / PG_CONTROL).chmod(0o600)
        sync_tree(self.folder / "global")
        own(self.folder, self._request.os_user)

    def keep(self) -> None:
        """They are a server's from now on."""
        for space in self._spaces:
            release_tablespace(space)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for space in self._spaces:
            clear_tablespace(space)
        with contextlib.suppress(OSError):  # it may be a person's, or hold what is not ours
            default_folder(self._request.target_dir).rmdir()

    def require_room(self, repository: Repository, candidate: Candidate) -> None:
        """Raises `HostTooSmall` where a disk has too little; what cannot be read without a key fails here too."""
        self._require_room(*self._links(repository, candidate))

    def _links(self, repository: Repository, candidate: Candidate) -> tuple[list[Link], Mapping[Tablespace, Path]]:
        """The chain, and where its tablespaces go."""
        links = [_link(repository, backup) for backup in candidate.chain]
        return links, new_locations(
            candidate.chain[-1].tablespaces, self._request.tablespaces, self._request.target_dir
        )

    def _require_room(self, links: Iterable[Link], locations: Mapping[Tablespace, Path], spare: int = 0) -> None:
        files = (file for link in links for file in link.told.files.values())
        needed = {**bytes_by_place(files, locations, self.folder.parent)}
        needed[self.folder.parent] = needed.get(self.folder.parent, 0) + spare
        require_room(needed)

    def _prepare_tablespaces(self, locations: Mapping[Tablespace, Path]) -> None:
        """Each tablespace's new directory, and the link to it through which its files are written."""
        for space, location in locations.items():
            claim_tablespace(location, self._request.target_dir)
            self._spaces.append(location)
            own(location, self._request.os_user)
            link = self.folder / "pg_tblspc" / str(space.oid)
            link.parent.mkdir(exist_ok=True, mode=0o700)
            link.symlink_to(location)
            self._note(f"tablespace {space.oid}, which was at {space.location}, is at {location}")


def _link(repository: Repository, backup: BackupManifest) -> Link:
    stored = fetch_verified(repository.store, backup.backup_manifest)
    told = backup_manifest.parse(repository.codec.decode(stored))
    return Link(backup, repository.open_archive(backup), told)
