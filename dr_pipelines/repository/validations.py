"""What each validation of a backup saw and measured: evidence on the tier that it was restored from, sealed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.errors import IntegrityError, RepositoryError
from dr_pipelines.repository import layout
from dr_pipelines.repository.manifest import LsnField
from dr_pipelines.repository.sealed import seal, unseal
from dr_pipelines.storage.base import Body, ObjectStore, read_all


class SeenCheck(BaseModel):
    """A `CheckResult` as it is kept."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    name: str
    verdict: Verdict
    summary: str
    details: Mapping[str, Any] = {}

    @classmethod
    def of(cls, result: CheckResult) -> SeenCheck:
        return cls(name=result.name, verdict=result.verdict, summary=result.summary, details=dict(result.details))


class Validation(BaseModel):
    """One restore of a backup, to a scratch server, and what was found in it. `phases` in seconds (`plan recall fetch
    write replay start validate`); `reached` is the newest LSN that was replayed; `bytes` are raw bytes of the chain,
    `wal_bytes` of WAL that was replayed. The verdict is that of the worst check."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, defer_build=True)

    format: Literal[1] = 1
    server: str
    label: str
    chain: tuple[str, ...]
    tier: str
    at: datetime
    run: str
    verdict: Verdict
    summary: str
    phases: Mapping[str, float]
    bytes: int
    wal_bytes: int
    reached: LsnField | None = None
    checks: tuple[SeenCheck, ...] = ()

    @property
    def recovery_seconds(self) -> float:
        """The measured RTO: all that a recovery needs until the server answers; validating and waiting for cold
        storage are shown apart."""
        return sum(seconds for phase, seconds in self.phases.items() if phase not in ("validate", "recall"))


@dataclass(frozen=True)
class KeptValidation:
    """With the key that it lies under."""

    key: str
    validation: Validation


def put_validation(store: ObjectStore, validation: Validation) -> str:
    """Returns its key."""
    key = layout.evidence(_kind(validation.server), validation.at, secrets.token_hex(6))
    store.put(key, Body.of(seal(validation.model_dump(mode="json"))))
    return key


def put_document(store: ObjectStore, kind: str, at: datetime, page: bytes) -> str:
    """A page of HTML for people, beside the evidence. Returns its key."""
    key = layout.evidence_document(kind, at, secrets.token_hex(6))
    store.put(key, Body.of(page))
    return key


def read_validations(
    store: ObjectStore, server: str, since: datetime | None = None, *, newest: int | None = None
) -> list[KeptValidation]:
    """Oldest first; all of them, or so many of the `newest`. Raises `RepositoryError` for one that cannot be
    understood."""
    listed = ((layout.parse_evidence(info.key), info.key) for info in store.list(layout.EVIDENCE))
    ours = sorted(
        (found[1], key)
        for found, key in listed
        if found is not None and found[0] == _kind(server) and (since is None or found[1] >= since)
    )
    keys = [key for _, key in (ours if newest is None else ours[-newest:])]
    with ThreadPoolExecutor(8) as pool:
        return [
            KeptValidation(key, seen) for key, seen in zip(keys, pool.map(partial(_read, store), keys), strict=True)
        ]


def _kind(server: str) -> str:
    return f"validation-{server}"


def _read(store: ObjectStore, key: str) -> Validation:
    try:
        return Validation.model_validate(unseal(read_all(store, key)))
    except (ValidationError, IntegrityError) as error:
        raise RepositoryError(f"{key} on {store.name} is no readable validation") from error
