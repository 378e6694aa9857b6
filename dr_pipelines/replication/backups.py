"""One backup, or one snapshot of files, to another tier. The order of writes is that of taking: a claim, the objects, a
look at what is there, keeps, marks that are true there too, the manifest; so a crash leaves a whole copy or garbage,
and the next run goes on where it ended. What it shares with others and is there already is not copied again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.clock import Clock
from dr_pipelines.errors import (
    BackupNotFound,
    DrError,
    IntegrityError,
    ObjectNotFound,
    ObjectOffline,
    RepositoryError,
    StoreError,
)
from dr_pipelines.replication.copy import Copied, Copier
from dr_pipelines.replication.marks import tell
from dr_pipelines.repository.digests import OBJECTS_MATCH
from dr_pipelines.repository.labels import Labelled, list_homes
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.repository.recall import Needed, availabilities
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sealed import unseal
from dr_pipelines.storage.base import Availability, Body, read_all
from dr_pipelines.wording import counted

PROOF = "replicate"


class SourceDamaged(IntegrityError):
    """A backup cannot be copied because the source has it not whole. Others can."""


def copy_backup(copier: Copier, backup: Labelled, *, clock: Clock, run: str) -> Copied:
    """Raises `SourceDamaged`; `BackupNotFound` when the source let it go meanwhile; `RepositoryError` when the target
    has another backup under this label; `ObjectOffline` before anything is copied; what a store raises. A proof of what
    was read is put on both tiers."""
    source, target = copier.source, copier.target
    try:
        data = _manifest(source, backup)
        there = _sizes(target, backup)
        _refuse_another(target, backup, data, there)
        _require_at_hand(source, backup, there)
        claim = backup.layout.claim(secrets.token_hex(8))
        target.store.put(claim, Body.of(b'{"replicate": true}\n'))
        copied = copier.copy(backup.objects, there, stop_at_damage=True)
        if copied.damaged:
            first = copied.damaged[0].error
            raise SourceDamaged(first.message, hint=f"`dr scrub {source.tier}` repairs it from a tier that has it.")
    except SourceDamaged as error:
        _require_still_there(source, backup)
        _prove(source, backup, failed(OBJECTS_MATCH, error.message), clock=clock, run=run)
        raise
    _require_all(target, backup)
    _copy_keeps(source, target, backup, there)
    tell(source, target, backup.layout)
    target.put(backup.layout.manifest, Body.of(data))
    _end(copier, backup, copied, [claim, *_claims(backup, there)], clock=clock, run=run)
    return copied


def _require_at_hand(source: Repository, backup: Labelled, there: Mapping[str, int]) -> None:
    """What is to be copied. Raises `ObjectOffline` before anything is."""
    wanted = [stored for stored in backup.objects if there.get(stored.key) != stored.size]
    if not wanted or not source.store.capabilities.storage_classes:
        return
    infos = {key: info for key, info in list_homes(source.store, backup).items() if info.storage_class is not None}
    doubtful = [
        Needed(source.tier, source.store, stored.key, stored.size, infos[stored.key].storage_class)
        for stored in wanted
        if stored.key in infos
    ]
    away = [needed for needed, state in availabilities(doubtful) if state is not Availability.ONLINE]
    if away:
        size = sum(needed.size for needed in away)
        raise ObjectOffline(
            f"{backup.label} is not copied: {counted(len(away), 'object')} of it ({size / 1e9:.3g} GB) must be "
            f"recalled first on {source.tier}",
            hint=f"`dr store recall {source.tier} {backup.owner} {backup.label}` asks for them; replicate again when "
            "they are there.",
        )


def _sizes(repository: Repository, backup: Labelled) -> dict[str, int]:
    return {key: info.size for key, info in list_homes(repository.store, backup).items()}


def _manifest(source: Repository, backup: Labelled) -> bytes:
    """As it is stored: its copy is the same to the byte."""
    try:
        data = read_all(source.store, backup.layout.manifest)
        unseal(data)
        return data
    except (IntegrityError, ObjectNotFound) as error:
        raise SourceDamaged(
            f"{backup.layout.manifest} on {source.store.name} is damaged: {error.message}",
            hint=f"`dr scrub {source.tier}` repairs it from a tier that has it.",
        ) from error


def _require_still_there(source: Repository, backup: Labelled) -> None:
    """What retention let go, or is pruning, is not damaged."""
    try:
        source.store.stat(backup.layout.manifest)
    except ObjectNotFound:
        raise BackupNotFound(
            f"{backup.label} left {source.tier} before it was copied",
            hint=f"`dr retention undo` may bring it back on {source.tier}.",
        ) from None


def _copy_keeps(source: Repository, target: Repository, backup: Labelled, there: Iterable[str]) -> None:
    """As they are now: a copy may have taken hours."""
    for info in source.store.list(backup.layout.keeps):
        if info.key not in there:
            with contextlib.suppress(ObjectNotFound):  # it was taken back
                target.store.put(info.key, Body.of(read_all(source.store, info.key)))


def _refuse_another(target: Repository, backup: Labelled, data: bytes, there: Iterable[str]) -> None:
    """Before anything of it is replaced."""
    manifest = backup.layout.manifest
    if manifest in there and read_all(target.store, manifest) != data:
        raise RepositoryError(
            f"{manifest} on {target.store.name} is not that of the backup that is to be copied",
            hint=f"`dr scrub {target.tier}` repairs it when it is damaged; else another plan's server or "
            "file set writes there under the same name: give each a store or prefix of its own.",
        )


def _require_all(target: Repository, backup: Labelled) -> None:
    """What an earlier run had left may have been pruned since the listing."""
    sizes = _sizes(target, backup)
    gone = [stored.key for stored in backup.objects if sizes.get(stored.key) != stored.size]
    if gone:
        raise StoreError(
            f"{gone[0]} is not on {target.store.name} any more, where it just was",
            hint=f"run `dr replicate {backup.owner}` again when nothing is pruned there.",
        )


def _claims(backup: Labelled, there: Iterable[str]) -> list[str]:
    """Of earlier runs that were killed."""
    return [key for key in there if key.startswith(backup.layout.claims)]


def _end(copier: Copier, backup: Labelled, copied: Copied, claims: list[str], *, clock: Clock, run: str) -> None:
    """The copy is there: what fails now costs nothing but a proof or a claim that is left. A copy that went on where an
    earlier run had ended has not read everything, and proves nothing of the whole."""
    if not copied.already_there:
        seen = passed(
            OBJECTS_MATCH,
            f"all {copied.objects} objects matched on their way from {copier.source.tier} to {copier.target.tier}",
            objects=copied.objects,
            bytes=copied.bytes,
        )
        for repository in (copier.target, copier.source):
            _prove(repository, backup, seen, clock=clock, run=run)
    for claim in claims:
        with contextlib.suppress(DrError):
            copier.target.store.delete(claim)


def _prove(repository: Repository, backup: Labelled, seen: CheckResult, *, clock: Clock, run: str) -> None:
    with contextlib.suppress(DrError):
        put_proof(repository.store, backup.layout, PROOF, seen, at=clock.now(), tier=repository.tier, run=run)
