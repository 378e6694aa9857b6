"""Our format on one store: what is there, and how a backup comes to be there.

The order of writes is what makes a crash harmless: a claim, then every object, then the manifest as the last put.
A backup exists if and only if its manifest does. What a backup contains does not belong here.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import socket
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeVar

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ObjectExists, ObjectLocked, ObjectNotFound, RepositoryError
from dr_pipelines.repository import layout
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.archive_writer import ArchiveWriter
from dr_pipelines.repository.break_glass import bundle
from dr_pipelines.repository.catalog import Catalog, chain_of, read_catalog, read_manifest
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, BackupLayout, LabelLayout, label_for
from dr_pipelines.repository.manifest import FORMAT_VERSION, BackupManifest, StoredObject, encode
from dr_pipelines.repository.placement import ORDINARY, Placement
from dr_pipelines.repository.sealed import seal
from dr_pipelines.storage.base import Body, ObjectStore, read_all

if TYPE_CHECKING:
    from dr_pipelines.repository.wal import WalArchive

_CLAIM_ATTEMPTS = 30
L = TypeVar("L", bound=LabelLayout)


def new_description() -> bytes:
    """What lies in `repository.json`: with its own digest, for an id that is another id looks as right as before."""
    return seal({"format": FORMAT_VERSION, "id": secrets.token_hex(16)})


class Repository:
    """The repository on a tier. Cheap to make; nothing is read before it is asked for."""

    def __init__(self, store: ObjectStore, codec: Codec, tier: str, placement: Placement = ORDINARY) -> None:
        self.store, self.codec, self.tier, self.placement = store, codec, tier, placement

    def put(self, key: str, body: Body, *, if_absent: bool = True) -> None:
        """An object of the format, as the plan wants it to lie in its store."""
        self.placement.put(self.store, key, body, if_absent=if_absent)

    def initialise(self) -> None:
        """Makes the store a repository; one that is already a repository stays as it is."""
        with contextlib.suppress(ObjectExists):
            self.store.put(layout.REPOSITORY, Body.of(new_description()))
        self.check_format()

    def check_format(self) -> str:
        """The repository's id. Raises `RepositoryError` where there is none, or one that we cannot read."""
        try:
            described = json.loads(read_all(self.store, layout.REPOSITORY))
            version, identity = int(described["format"]), str(described["id"])
        except ObjectNotFound:
            raise RepositoryError(
                f"there is no repository on {self.tier} ({self.store.name})", hint="make it with `dr repository init`."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise RepositoryError(f"{layout.REPOSITORY} on {self.store.name} is unreadable") from error
        if version > FORMAT_VERSION:
            raise RepositoryError(
                f"the repository on {self.store.name} is of format {version}; "
                f"this program reads up to {FORMAT_VERSION}",
                hint="use the newer version of dr.",
            )
        return identity

    def servers(self) -> list[str]:
        """Every server of which there is anything."""
        return sorted({layout.server_of(info.key) for info in self.store.list(layout.SERVERS)})

    def catalog(self, server: str) -> Catalog:
        return read_catalog(self.store, server)

    def backups(self, server: str) -> list[BackupManifest]:
        """Oldest first. What is not understood is in `catalog(server).problems`."""
        return list(self.catalog(server).backups)

    def usable_backups(self, server: str) -> list[BackupManifest]:
        """Those that can be restored as far as the catalog shows it, oldest first."""
        return list(self.catalog(server).usable)

    def backup(self, server: str, label: str) -> BackupManifest:
        """Raises `BackupNotFound`."""
        return read_manifest(self.store, server, label)

    def chain(self, manifest: BackupManifest) -> list[BackupManifest]:
        """The full backup and the incrementals up to `manifest`. Raises `RepositoryError` when a link is missing."""
        links: list[BackupManifest] = []
        parent = manifest.parent
        while parent is not None and all(link.label != parent for link in links):
            links.append(self.backup(manifest.server, parent))
            parent = links[-1].parent
        return chain_of(manifest, links)

    def open_archive(self, manifest: BackupManifest, *, workers: int = 3) -> ArchiveReader:
        return ArchiveReader(self.store, manifest.archive, self.codec, workers=workers)

    def begin(self, server: str, kind: BackupKind, *, clock: Clock) -> BackupWriter:
        """A writer under a label that no other writer has. Waits a second or more when two begin at once."""
        layout, claim = self.claim(lambda at: BackupLayout(server, label_for(at, kind)), clock=clock)
        return BackupWriter(self, server, layout.label, claim)

    def claim(self, layout_at: Callable[[datetime], L], *, clock: Clock) -> tuple[L, str]:
        """A label that nobody else has, and the key of our claim on it. Waits when two begin at once."""
        for _ in range(_CLAIM_ATTEMPTS):
            keys = layout_at(clock.now())
            claim = self._claim(keys)
            if claim is not None:
                return keys, claim
            clock.wait(1 + 2 * random.random())  # two writers that met must not meet again
        raise RepositoryError(
            f"no label is free below {keys.prefix.rpartition(keys.label)[0]} on {self.store.name}",
            hint="another program takes backups of the same without end; stop it.",
        )

    def wal(self, server: str, system_id: str, segment_size: int | None = None) -> WalArchive:
        """Whoever only reads may give the segment size, as a backup's manifest knows it."""
        from dr_pipelines.repository.wal import WalArchive  # files need none

        return WalArchive(self.store, self.codec, server, system_id, segment_size, placement=self.placement)

    def wal_system_ids(self, server: str) -> list[str]:
        keys = self.store.list(layout.wal_prefix(server))
        return sorted({layout.system_id_of(server, info.key) for info in keys})

    def _claim(self, keys: LabelLayout) -> str | None:
        """The key of our claim on a label, or None when anything else is under it. A store may ignore conditions on
        a put, so a claim has a name of its own and counts only if, after it was put, it is alone: of two writers, at
        least the later one to list sees the other."""
        if any(self.store.list(keys.prefix)):
            return None
        key = keys.claim(secrets.token_hex(8))
        self.store.put(key, Body.of(json.dumps({"host": socket.gethostname()}).encode() + b"\n"))
        if [info.key for info in self.store.list(keys.prefix)] == [key]:
            return key
        self.store.delete(key)
        return None


class BackupWriter:
    """One backup in the making. End it with `commit` or `abandon`; a crash between leaves garbage, never a backup."""

    def __init__(self, repository: Repository, server: str, label: str, claim: str) -> None:
        self.server, self.label = server, label
        self._repository, self._claim = repository, claim
        self._store, self._codec = repository.store, repository.codec
        self._layout = BackupLayout(server, label)
        self._archives: list[ArchiveWriter] = []

    def archive(self) -> ArchiveWriter:
        """The writer of the backup's tar; its packs go straight to the store."""
        writer = ArchiveWriter(self._put_pack, self._codec)
        self._archives.append(writer)
        return writer

    def put_encoded(self, key_name: Literal["backup_manifest", "index", "facts"], data: bytes) -> StoredObject:
        key: str = getattr(self._layout, key_name)(self._codec.suffix)
        return self._put(key, Body.of(self._codec.encode(data)))

    def commit(self, manifest: BackupManifest) -> BackupManifest:
        """Puts the break-glass bundle, then the manifest. From that moment the backup exists; it is returned as it
        was stored."""
        if (manifest.server, manifest.label) != (self.server, self.label):
            raise ValueError(f"a manifest of {manifest.label} cannot be committed as {self.label}")
        chain = self._repository.chain(manifest)
        files = tuple(self._put(self._layout.break_glass(name), Body.of(data)) for name, data in bundle(chain).items())
        committed = manifest.model_copy(update={"break_glass": files})
        self._put(self._layout.manifest, Body.of(encode(committed)))
        with contextlib.suppress(DrError):  # a claim beside a manifest says nothing
            self._store.delete(self._claim)
        return committed

    def abandon(self) -> None:
        """Removes what was put, as far as the store lets us; the rest is garbage for `prune`. Raises nothing, so
        that the error that led here stays the one that is seen.

        The manifest goes first: a commit whose put was not answered may have reached the store.
        """
        for archive in self._archives:
            archive.abort()
        with contextlib.suppress(DrError):
            self._store.delete(self._layout.manifest)
            for info in self._store.list(self._layout.prefix):
                if info.key != self._claim:
                    with contextlib.suppress(ObjectLocked):
                        self._store.delete(info.key)
            self._store.delete(self._claim)

    def _put_pack(self, number: int, body: Body) -> StoredObject:
        return self._put(self._layout.pack(number, self._codec.suffix), body)

    def _put(self, key: str, body: Body) -> StoredObject:
        self._repository.put(key, body)
        return StoredObject(key=key, size=body.size, sha256=body.sha256)
