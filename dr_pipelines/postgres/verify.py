"""Are a backup's bytes right? Reads the store, never our own records of what we wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, IntegrityError, KeyUnusable, ObjectNotFound
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.backup_manifest import ServerManifest
from dr_pipelines.postgres.tar_stream import Content, Header, TarWalk
from dr_pipelines.progress import Progress
from dr_pipelines.repository.completeness import manifest_is_complete
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.repository import Repository

OBJECTS_MATCH = "objects_match_sha256"
CONTENTS_MATCH = "contents_match_backup_manifest"


def verify(repository: Repository, manifest: BackupManifest, *, progress: Progress) -> list[CheckResult]:
    """All checks of one backup. What could not be looked at is not proven. Every object is read once: one whose
    contents match was compared with its SHA-256 when it was read for that."""
    contents = contents_match_backup_manifest(repository, manifest, progress)
    read = (*manifest.archive.packs, manifest.backup_manifest) if contents.passed else ()
    return [
        manifest_is_complete(repository.store, manifest),
        objects_match_sha256(repository, manifest, progress, matching=read),
        contents,
    ]


def objects_match_sha256(
    repository: Repository, manifest: BackupManifest, progress: Progress, *, matching: Collection[StoredObject] = ()
) -> CheckResult:
    """Every stored object against its SHA-256; needs no key. `matching` are those that were found to match already."""
    done = {stored.key for stored in matching}
    left = [stored for stored in manifest.objects if stored.key not in done]
    progress.phase("objects", sum(stored.size for stored in left))
    bad: list[str] = []
    read = len(done)
    for stored in left:
        try:
            fetch_verified(repository.store, stored)
            read += 1
        except (IntegrityError, ObjectNotFound) as error:
            bad.append(error.message)
        except DrError as error:
            return not_proven(OBJECTS_MATCH, f"{stored.key} could not be read: {error.message}", objects=read)
        progress.advance(stored.size)
    if bad:
        summary = f"{len(bad)} of {len(manifest.objects)} objects are damaged or gone"
        hint = f"`dr scrub {repository.tier}` repairs them from another tier."
        return failed(OBJECTS_MATCH, summary, bad=bad[:10], hint=hint)
    return passed(OBJECTS_MATCH, f"all {read} objects match", objects=read, bytes=manifest.stored_size)


def contents_match_backup_manifest(repository: Repository, manifest: BackupManifest, progress: Progress) -> CheckResult:
    """Every file in the archive against PostgreSQL's own checksum; needs an identity when the backup is encrypted."""
    progress.phase("contents", manifest.archive.size)
    try:
        stored = fetch_verified(repository.store, manifest.backup_manifest)
        told = backup_manifest.parse(repository.codec.decode(stored))
        missing, wrong = set(told.files), []
        for path, right in _files(repository, manifest, told, progress):
            if not right or path not in missing:
                wrong.append(path)
            missing.discard(path)
    except KeyUnusable as error:
        return not_proven(CONTENTS_MATCH, f"the contents cannot be read here: {error.message}", hint=error.hint)
    except IntegrityError as error:
        return failed(CONTENTS_MATCH, error.message)
    except DrError as error:
        return not_proven(CONTENTS_MATCH, f"the contents could not be read: {error.message}")
    count = len(told.files)
    if wrong or missing:
        summary = f"{len(wrong)} files differ and {len(missing)} are missing of {count}"
        return failed(CONTENTS_MATCH, summary, wrong=sorted(wrong)[:10], missing=sorted(missing)[:10])
    return passed(CONTENTS_MATCH, f"all {count} files match", files=count, bytes=manifest.archive.size)


def _files(
    repository: Repository, manifest: BackupManifest, told: ServerManifest, progress: Progress
) -> Iterator[tuple[str, bool]]:
    """Each file or link of the archive, with whether it is one that the server named, of its size and checksum."""
    walk, checksum = TarWalk(), backup_manifest.new_checksum("NONE")
    for piece in repository.open_archive(manifest).pieces():
        for event in walk.feed(piece):
            if isinstance(event, Header):
                member = event.member
                named = told.files.get(member.name)
                checksum = backup_manifest.new_checksum(named.algorithm if named else "NONE")
                ended = member.kind != "directory" and member.size == 0
            elif isinstance(event, Content):
                checksum.update(event.data)
                member = event.member
                ended = event.offset + len(event.data) == member.size
            else:
                continue
            if ended:
                named, seen = told.files.get(member.name), (member.kind, member.size, checksum.hexdigest())
                yield member.name, named is not None and seen == ("file", named.size, named.checksum)
        progress.advance(len(piece))
    walk.finish()
