"""`repository.json` of a tier: is it whole, and made anew where it is not. What else a tier holds proves itself."""

from __future__ import annotations

import json
import re
import secrets

from dr_pipelines.errors import DrError, ObjectNotFound
from dr_pipelines.replication.inventory import Fault
from dr_pipelines.replication.repair import Outcome, State
from dr_pipelines.repository import layout
from dr_pipelines.repository.manifest import FORMAT_VERSION
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, read_all

_IDENTITY = re.compile(r"\A[0-9a-f]{32}\Z")


def scrub_description(repository: Repository, *, repair: bool) -> Outcome | None:
    """None when it is whole. Raises `RepositoryError` where there is no repository, or one of a newer format, and what
    the store raises when it cannot be read."""
    fault = _fault(repository)
    if fault is None:
        repository.check_format()
        return None
    if not repair:
        return Outcome(fault, State.FOUND)
    described = {"format": FORMAT_VERSION, "id": secrets.token_hex(16)}
    try:
        repository.store.put(fault.key, Body.of(json.dumps(described).encode() + b"\n"), if_absent=False)
    except DrError as error:
        return Outcome(fault, State.UNDECIDED, f"it could not be put: {error.message}")
    return Outcome(fault, State.REPAIRED, "nothing: it has a new id")


def _fault(repository: Repository) -> Fault | None:
    try:
        described = json.loads(read_all(repository.store, layout.REPOSITORY))
        right = int(described["format"]) > 0 and _IDENTITY.match(described["id"])
    except ObjectNotFound:
        is_used = next(iter(repository.store.list(layout.SERVERS)), None) is not None
        return Fault(layout.REPOSITORY, "missing") if is_used else None
    except (ValueError, KeyError, TypeError):
        right = False
    return None if right else Fault(layout.REPOSITORY, "damaged")
