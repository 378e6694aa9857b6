"""Stored objects of a backup or a snapshot against the SHA-256 that its manifest names; needs no key."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, IntegrityError, ObjectNotFound, ObjectOffline
from dr_pipelines.progress import Progress
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import WHOLE, Manifest, Part, objects_in
from dr_pipelines.wording import counted

OBJECTS_MATCH = "objects_match_sha256"


def objects_match_sha256(
    repository: Repository,
    manifest: Manifest,
    progress: Progress,
    *,
    matching: Collection[StoredObject] = (),
    part: Part = WHOLE,
) -> CheckResult:
    """`matching` are those that were found to match already."""
    done = {stored.key for stored in matching}
    chosen = objects_in(manifest, part)
    left = [stored for stored in chosen if stored.key not in done]
    progress.phase("objects", sum(stored.size for stored in left))
    bad: list[str] = []
    offline: list[StoredObject] = []
    read = [*matching]
    for stored in left:
        try:
            fetch_verified(repository.store, stored)
            read.append(stored)
        except (IntegrityError, ObjectNotFound) as error:
            bad.append(error.message)
        except ObjectOffline:
            offline.append(stored)
        except DrError as error:
            summary = f"{stored.key} could not be read: {error.message}"
            return not_proven(OBJECTS_MATCH, summary, label=manifest.label, objects=len(read), hint=error.hint)
        progress.advance(stored.size)
    seen = {"label": manifest.label, "objects": len(read), "of": len(manifest.objects)}
    seen |= {"bytes": sum(stored.size for stored in read), "of_bytes": manifest.stored_size}
    seen |= {"offline": len(offline)}
    if bad:
        summary = f"{len(bad)} of {len(bad) + len(read)} objects that were read are damaged or gone"
        hint = f"`dr scrub {repository.tier}` repairs them from another tier."
        return failed(OBJECTS_MATCH, summary, bad=bad[:10], hint=hint, **seen)
    if offline:
        summary = f"{not_read(offline)}; {len(read)} were read, and match"
        return not_proven(OBJECTS_MATCH, summary, hint=recall_hint(repository.tier, manifest), **seen)
    if len(read) == len(manifest.objects):
        return passed(OBJECTS_MATCH, f"all {len(read)} objects match", **seen)
    share = percent(sum(stored.size for stored in read), manifest.stored_size)
    said = f"{len(read)} of {counted(len(manifest.objects), 'object')} read, all match: a sample of {share} by bytes"
    return passed(OBJECTS_MATCH, said, **seen)


def not_read(offline: Sequence[StoredObject]) -> str:
    """What could not be looked at because it must be recalled first, in words."""
    size = sum(stored.size for stored in offline)
    return f"{counted(len(offline), 'object')} ({size / 1e9:.3g} GB) must be recalled first, and were not read"


def recall_hint(tier: str, manifest: Labelled) -> str:
    return f"`dr store recall {tier} {manifest.owner} {manifest.label}` asks for them; then look again."


def percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.0f} %" if share >= 1 or not part else "less than 1 %"
