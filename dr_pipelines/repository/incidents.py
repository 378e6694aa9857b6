"""Incidents as every tier knows them: open until a person closes them. While one is, nothing is removed.

An incident is an object, its closing another. What to do in one does not belong here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from dr_pipelines.errors import ObjectNotFound, RepositoryError
from dr_pipelines.repository import layout
from dr_pipelines.storage.base import Body, ObjectStore, read_all


class Incident(BaseModel):
    """`at`: when it was opened."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    reason: str
    by: str
    at: datetime


def new_incident(reason: str, by: str, at: datetime) -> Incident:
    return Incident(id=layout.incident_id(at, secrets.token_hex(3)), reason=reason, by=by, at=at)


def open_incident(store: ObjectStore, incident: Incident) -> None:
    """Opening the same one again is success."""
    store.put(layout.incident(incident.id), Body.of(incident.model_dump_json(indent=1).encode() + b"\n"))


def close_incident(store: ObjectStore, identity: str, by: str, at: datetime) -> bool:
    """Whether it was there and open."""
    keys = {info.key for info in store.list(layout.INCIDENTS) if layout.incident_of(info.key) == identity}
    if layout.incident(identity) not in keys or layout.incident_closed(identity) in keys:
        return False
    closing = Incident(id=identity, reason="closed", by=by, at=at)
    store.put(layout.incident_closed(identity), Body.of(closing.model_dump_json(indent=1).encode() + b"\n"))
    return True


def open_incidents(store: ObjectStore) -> Sequence[Incident]:
    """Oldest first. Raises `RepositoryError` for one that cannot be understood: it may be the one that matters."""
    keys = {info.key for info in store.list(layout.INCIDENTS)}
    identities = sorted({layout.incident_of(key) for key in keys})
    return [
        _read(store, identity)
        for identity in identities
        if layout.incident(identity) in keys and layout.incident_closed(identity) not in keys
    ]


def _read(store: ObjectStore, identity: str) -> Incident:
    key = layout.incident(identity)
    try:
        return Incident.model_validate_json(read_all(store, key))
    except (ValidationError, ObjectNotFound) as error:
        raise RepositoryError(f"{key} on {store.name} is no readable incident") from error
