"""Opening and closing incidents, on every store: while one is open, nothing is removed anywhere."""

from __future__ import annotations

from collections.abc import Callable

from dr_pipelines.errors import DrError, NotProven, UsageError
from dr_pipelines.repository import incidents
from dr_pipelines.repository.incidents import Incident
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore


def open_incident(site: Site, reason: str, by: str) -> Incident:
    """Raises `NotProven`, naming the stores that could not be written, when it is open on the others."""
    incident = incidents.new_incident(reason, by, site.clock.now())
    _everywhere(site, f"incident {incident.id} is open", lambda store: incidents.open_incident(store, incident))
    return incident


def close_incident(site: Site, identity: str, by: str) -> None:
    """Raises `UsageError` when no store has it open; `NotProven`, naming the stores that could not be written."""
    closed: list[str] = []

    def close(store: ObjectStore) -> None:
        if incidents.close_incident(store, identity, by, site.clock.now()):
            closed.append(store.name)

    _everywhere(site, f"incident {identity} is closed", close)
    if not closed:
        raise UsageError(f"no incident {identity!r} is open", hint="`dr incident list` shows those that are.")


def list_incidents(site: Site) -> list[Incident]:
    """Those that are open on any store, oldest first. Raises `NotProven` when a store cannot be read."""
    found: dict[str, Incident] = {}

    def read(store: ObjectStore) -> None:
        found.update({incident.id: incident for incident in incidents.open_incidents(store)})

    _everywhere(site, "incidents are read", read)
    return [found[identity] for identity in sorted(found)]


def _everywhere(site: Site, done: str, act: Callable[[ObjectStore], None]) -> None:
    """Every store that is a tier of a server or a file set is tried, whatever the first of them says."""
    names = dict.fromkeys(name for user in site.users for _, name in site.storage_of(user).items())
    failed: dict[str, str] = {}
    for name in names:
        try:
            act(site.store(name))
        except DrError as error:
            failed[name] = error.message
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise NotProven(
            f"{done} on {len(names) - len(failed)} of {len(names)} stores; not on {told}",
            hint="say it again when they answer (`dr store check`).",
        )
