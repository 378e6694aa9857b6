"""`repository.json` of a tier: is it whole, and made anew where it is not. What else a tier holds proves itself."""

from __future__ import annotations

import json
import re

from dr_pipelines.errors import DrError, IntegrityError, ObjectNotFound
from dr_pipelines.replication.inventory import Fault
from dr_pipelines.replication.repair import Outcome, State
from dr_pipelines.repository import layout
from dr_pipelines.repository.file_layout import FILES
from dr_pipelines.repository.manifest import FORMAT_VERSION
from dr_pipelines.repository.repository import Repository, new_description
from dr_pipelines.repository.sealed import is_as_sealed, unseal
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
    try:
        repository.store.put(fault.key, Body.of(new_description()), if_absent=False)
    except DrError as error:
        return Outcome(fault, State.UNDECIDED, f"it could not be put: {error.message}")
    return Outcome(fault, State.REPAIRED, "nothing: it has a new id")


def _fault(repository: Repository) -> Fault | None:
    try:
        data = read_all(repository.store, layout.REPOSITORY)
    except ObjectNotFound:
        is_used = any(any(repository.store.list(prefix)) for prefix in (layout.SERVERS, FILES))
        return Fault(layout.REPOSITORY, "missing") if is_used else None
    return None if _is_whole(data) or _is_newer(data) else Fault(layout.REPOSITORY, "damaged")


def _is_whole(data: bytes) -> bool:
    try:
        described = unseal(data)
        return int(described["format"]) > 0 and bool(_IDENTITY.match(described["id"])) and is_as_sealed(data)
    except (IntegrityError, ValueError, KeyError, TypeError):
        return False


def _is_newer(data: bytes) -> bool:
    """A later format may be written otherwise: it is refused, and not made anew."""
    try:
        return int(json.loads(data)["format"]) > FORMAT_VERSION
    except (ValueError, KeyError, TypeError):
        return False
