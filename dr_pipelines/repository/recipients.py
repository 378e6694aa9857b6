"""Is what is stored encrypted for whom the plan says, and for nobody else? Headers of objects, read from the store.

An age header shows how many recipients a file has, and hides who they are: who that is, is what the manifest says, and
what an identity proves where one is at hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.errors import IntegrityError, ObjectNotFound
from dr_pipelines.lsn import WalSegment
from dr_pipelines.repository.encryption import Identity, is_encrypted, opens, stanzas
from dr_pipelines.repository.layout import WalLayout, parse_wal_key
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import WHOLE, Manifest, Part, archives_in
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.wording import counted

RECIPIENTS_ARE_AS_PLANNED = "recipients_are_as_planned"
_HEAD = 64 * 1024
"""Bytes: a header takes about a hundred for each recipient."""
_PACKS = 8
"""So many are looked at; the manifest says the same of all."""
_KEEP = "keep the old identity until it has expired, and take a full for the new recipients: `dr backup {} --full`."


_KEEP_FILES = "keep the old identity until it has expired; what `dr files snapshot {}` takes is for the new ones."


def recipients_are_as_planned(
    repository: Repository, manifest: Manifest, planned: Collection[str], part: Part = WHOLE
) -> CheckResult:
    """The recipients of the manifest against the plan's, and the headers of its objects, of some of its packs and of
    the WAL that a backup begins with against both. Raises what the store raises."""
    label, told = manifest.label, set(manifest.encoding.recipients)
    details: dict[str, Any] = {"label": label, "planned": sorted(planned), "recipients": sorted(told)}
    if told != set(planned):
        hint = (_KEEP if isinstance(manifest, BackupManifest) else _KEEP_FILES).format(manifest.owner)
        return failed(RECIPIENTS_ARE_AS_PLANNED, _other(told, set(planned), label), hint=hint, **details)
    looked = _looked_at(repository, manifest, part)
    ours = [identity for identity in repository.codec.identities if str(identity.recipient) in told]
    said_of = ((key, _wrong(repository.store, key, len(told), ours)) for key in looked)
    wrong = {key: said for key, said in said_of if said is not None}
    details |= {"objects": len(looked), "wrong": list(wrong)[:10]}
    if wrong:
        key, said = next(iter(wrong.items()))
        summary = f"{len(wrong)} of {len(looked)} objects that were looked at are not as planned: {key} {said}"
        hint = "who put it? Once that is found out, take a full backup, or a snapshot that stores all files anew."
        return failed(RECIPIENTS_ARE_AS_PLANNED, summary, hint=hint, **details)
    if not told:
        return passed(RECIPIENTS_ARE_AS_PLANNED, f"{label} is in clear text, as the plan wants it", **details)
    proven = ", and the identity at hand opens them" if ours else ""
    whom = "the plan's recipient" if len(told) == 1 else f"the plan's {len(told)} recipients"
    summary = f"{label} is encrypted for {whom}: {counted(len(looked), 'header')} read{proven}"
    return passed(RECIPIENTS_ARE_AS_PLANNED, summary, **details)


def _other(told: set[str], planned: set[str], label: str) -> str:
    if not told:
        return f"{label} is in clear text, and the plan wants it encrypted"
    if not planned:
        return f"{label} is encrypted for {', '.join(sorted(told))}, and the plan encrypts nothing"
    more, less = sorted(told - planned), sorted(planned - told)
    said = [f"can be read by {', '.join(more)}, whom the plan does not name"] if more else []
    said += [f"cannot be read by {', '.join(less)}"] if less else []
    return f"{label} {' and '.join(said)}"


def _looked_at(repository: Repository, manifest: Manifest, part: Part) -> list[str]:
    if isinstance(manifest, Snapshot):
        chosen = (pack for archive in archives_in(manifest, part) for pack in archive.packs)
        return [stored.key for stored in (*manifest.tables, *islice(chosen, _PACKS))]
    packs = manifest.archive.packs
    begin = part.of(manifest.archive.size)[0] // manifest.archive.pack_size
    facts = () if manifest.facts is None else (manifest.facts,)
    named = [manifest.backup_manifest, manifest.index, *facts, *packs[begin : begin + _PACKS]]
    return [*(stored.key for stored in named), *_first_wal(repository.store, manifest)]


def _first_wal(store: ObjectStore, manifest: BackupManifest) -> Iterator[str]:
    """Objects of the segment that the backup begins in."""
    segment = WalSegment.containing(manifest.start_lsn, manifest.timeline, manifest.segment_size)
    for info in store.list(WalLayout(manifest.server, manifest.system_id).segment_prefix(segment)):
        if parse_wal_key(info.key) is not None:
            yield info.key


def _wrong(store: ObjectStore, key: str, recipients: int, identities: Sequence[Identity]) -> str | None:
    """What is not right with an object; None where all is, or it is gone: that is for another check to say."""
    try:
        head = b"".join(store.open(key, length=_HEAD))
    except ObjectNotFound:
        return None
    if not recipients:
        return "is encrypted" if is_encrypted(head) else None
    if not is_encrypted(head):
        return "is in clear text"
    try:
        kinds = stanzas(head)
        if set(kinds) != {"X25519"} or len(kinds) != recipients:
            return f"is encrypted for {len(kinds)} recipients ({', '.join(sorted(set(kinds)))})"
        if identities and not opens(head, identities):
            return "is not encrypted for the identity at hand"
    except IntegrityError as error:
        return f"cannot be read: {error.message}"
    return None
