"""What people and checks say of a backup beside its manifest: keeps, proofs, marks of damage, its expiry.

Each is an object of its own under the backup's label, so that one listing shows all of it and nothing that was written
is ever changed. What to make of them does not belong here.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.errors import IntegrityError, ObjectExists, RepositoryError
from dr_pipelines.repository.layout import LabelLayout, ProofName, parse_proof
from dr_pipelines.repository.sealed import seal, unseal
from dr_pipelines.storage.base import Body, ObjectStore, read_all

M = TypeVar("M")
VALIDATE = "validate"
"""The kind of a proof by restore. Every other kind only read bytes."""
EQUIVALENCE = "equivalence"
"""The kind of a proof that is about what an incremental holds, not about stored bytes: it is true on every tier."""
ANOMALY = "anomaly"
"""The kind of what was found of a snapshot beside the one before: unusual (`fail`), or usual, or that a person accepts
it (`pass`). It says nothing of stored bytes, and is true on every tier."""
TRUE_EVERYWHERE = (EQUIVALENCE, ANOMALY)
"""Kinds that say nothing of the tier on which they lie."""


class Keep(BaseModel):
    """A person's veto. `until` None: for ever."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    until: datetime | None
    reason: str
    by: str
    at: datetime

    def holds(self, now: datetime) -> bool:
        return self.until is None or self.until > now


@dataclass(frozen=True)
class Expired(Generic[M]):
    """What retention let go at a time; `data` is its manifest as it was stored."""

    manifest: M
    at: datetime
    reason: str
    data: bytes


@dataclass(frozen=True)
class Marks:
    """Of one backup. `missing`: objects that its manifest names and that are not there with their size; `damage`: keys
    of marks; `stored_bytes` of all its objects, whoever names them; `classes`: storage classes of those that are not in
    the store's ordinary one, by key."""

    keeps: Mapping[str, Keep] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    proofs: tuple[ProofName, ...] = ()
    missing: tuple[str, ...] = ()
    stored_bytes: int = 0
    classes: Mapping[str, str] = field(default_factory=dict)

    def proven(self) -> ProofName | None:
        """The newest restore that passed, or else the newest reading of the bytes that did; None when it failed since.
        What a restore found wrong no reading of bytes makes right; what could not be looked at takes nothing back."""
        restored = self.validated()
        read = _newest(proof for proof in self.proofs if proof.kind not in (VALIDATE, ANOMALY))
        if restored is not None and restored.verdict == "fail":
            return None
        if read is not None and read.verdict == "fail" and (restored is None or restored.at <= read.at):
            return None
        return restored or read

    def validated(self) -> ProofName | None:
        """The newest restore that proved something: that the backup is good (`pass`), or that it is not (`fail`)."""
        return newest_of(VALIDATE, self.proofs)

    def newest_validation(self) -> ProofName | None:
        """The same, or where no restore proved anything, the newest that tried to."""
        tried = (proof for proof in self.proofs if proof.kind == VALIDATE)
        return self.validated() or max(tried, key=lambda proof: proof.at, default=None)

    def anomaly(self) -> ProofName | None:
        """Whether it was found unusual (`fail`), and a person accepted it since (`pass`)."""
        return newest_of(ANOMALY, self.proofs)

    def equivalence(self) -> ProofName | None:
        """The newest comparison of an incremental with its full and WAL."""
        return newest_equivalence(self.proofs)


def newest_equivalence(proofs: Iterable[ProofName]) -> ProofName | None:
    return newest_of(EQUIVALENCE, proofs)


def newest_of(kind: str, proofs: Iterable[ProofName]) -> ProofName | None:
    """Of those of a kind that saw enough."""
    return _newest(proof for proof in proofs if proof.kind == kind)


def unheard(here: Collection[ProofName], there: Collection[ProofName]) -> tuple[ProofName, ...]:
    """What one tier says that is true on every tier and matters to one that decides alone, and the other does not know:
    that an incremental or a snapshot is not well, and that such a snapshot was accepted."""
    found = []
    for kind in TRUE_EVERYWHERE:
        newest, other = newest_of(kind, here), newest_of(kind, there)
        if newest is None or newest == other or (other is not None and _newest((newest, other)) == other):
            continue
        takes_back = kind == ANOMALY and other is not None and other.verdict == "fail"
        found += [newest] if newest.verdict == "fail" or takes_back else []
    return tuple(found)


def _newest(proofs: Iterable[ProofName]) -> ProofName | None:
    """Of those that saw enough. Of one second, the failure counts."""
    decided = [proof for proof in proofs if proof.verdict in ("pass", "fail")]
    return max(decided, key=lambda proof: (proof.at, proof.verdict == "fail"), default=None)


def put_keep(store: ObjectStore, about: LabelLayout, keep: Keep, name: str | None = None) -> str:
    """`name`: of one that is put again after a crash; what is there under it stays."""
    key = about.keep(name or _nonce())
    with contextlib.suppress(*([ObjectExists] if name else [])):
        _put(store, key, encode_keep(keep))
    return key


def encode_keep(keep: Keep) -> bytes:
    return seal(keep.model_dump(mode="json"))


def read_keep(store: ObjectStore, key: str) -> Keep:
    """Raises `RepositoryError` for one that cannot be understood: it may be the one that matters."""
    try:
        return Keep.model_validate(unseal(read_all(store, key)))
    except (ValidationError, IntegrityError) as error:
        raise RepositoryError(f"{key} on {store.name} is no readable keep") from error


def put_damage(store: ObjectStore, about: LabelLayout, objects: list[str], *, at: datetime, found_by: str) -> str:
    """From now on no restore picks the backup on this tier."""
    told = {"at": at.isoformat(), "objects": objects, "found_by": found_by}
    return _put(store, about.damage(_nonce()), seal(told))


def read_damage(store: ObjectStore, key: str) -> list[str]:
    """The objects that a mark is about. Raises `ObjectNotFound`; `IntegrityError` when it is damaged itself."""
    return [str(about) for about in unseal(read_all(store, key))["objects"]]


def put_proof(
    store: ObjectStore, about: LabelLayout, kind: str, result: CheckResult, *, at: datetime, tier: str, run: str
) -> str:
    """Puts down that a backup was looked at, where and by which run, and what was seen."""
    verdict = result.verdict.value.replace(" ", "-")
    seen = {"check": result.name, "summary": result.summary, "details": dict(result.details), "tier": tier, "run": run}
    told = json.loads(json.dumps({"at": at.isoformat(), **seen}, default=str))
    return _put(store, about.proof(ProofName(kind, at, verdict), _nonce()), seal(told))


def list_proofs(store: ObjectStore, about: LabelLayout) -> dict[ProofName, str]:
    """Those of one backup, with the key of each."""
    return {proof: info.key for info in store.list(about.proofs) if (proof := parse_proof(info.key)) is not None}


def read_proof(store: ObjectStore, about: LabelLayout, kind: str) -> CheckResult | None:
    """The newest of a kind that proved something, as it was seen; None when there is none. Raises `RepositoryError` for
    one that cannot be understood."""
    found = list_proofs(store, about)
    newest = newest_of(kind, found)
    if newest is None:
        return None
    try:
        told = unseal(read_all(store, found[newest]))
        verdict = Verdict(newest.verdict)
        return CheckResult(str(told["check"]), verdict, str(told["summary"]), {**told["details"], "seen_at": newest.at})
    except (ValueError, KeyError, TypeError, IntegrityError) as error:
        raise RepositoryError(f"{found[newest]} on {store.name} is no readable proof") from error


def put_expired(store: ObjectStore, about: LabelLayout, data: bytes, *, at: datetime, reason: str) -> None:
    """`data` is the manifest as it is stored. An expiry that was begun and did not end is written anew."""
    told = {"at": at.isoformat(), "reason": reason, "manifest": json.loads(data)}
    store.put(about.expired, Body.of(seal(told)), if_absent=False)


def read_expired(store: ObjectStore, about: LabelLayout, decode: Callable[[bytes], M]) -> Expired[M]:
    """`decode` reads the manifest. Raises `ObjectNotFound`; `IntegrityError` when it is damaged."""
    try:
        told = unseal(read_all(store, about.expired))
        data = json.dumps(told["manifest"], indent=1).encode() + b"\n"
        return Expired(decode(data), datetime.fromisoformat(told["at"]), str(told["reason"]), data)
    except (ValueError, KeyError, TypeError, IntegrityError) as error:
        raise IntegrityError(f"{about.expired} on {store.name} is unreadable") from error


def _put(store: ObjectStore, key: str, data: bytes) -> str:
    store.put(key, Body.of(data))
    return key


def _nonce() -> str:
    return secrets.token_hex(8)
