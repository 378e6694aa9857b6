"""Reading a tier against its digests, and repairing it."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, NotProven, ObjectNotFound, StoreError, UsageError
from dr_pipelines.operations.replica_sides import sent_to
from dr_pipelines.progress import Progress
from dr_pipelines.replication.description import scrub_description
from dr_pipelines.replication.reading import Sample
from dr_pipelines.replication.repair import Outcome, State
from dr_pipelines.replication.scrub import PROMISE, ScrubOrder, ServerScrub, scrub_server
from dr_pipelines.repository import layout
from dr_pipelines.repository.owners import ServerOwner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore, read_all

_LOOKED_AT = 30
"""So many of the newest scrubs may have been of other servers."""


@dataclass(frozen=True)
class ScrubReport:
    """What a scrub of one store saw and did; `evidence` is where that is kept, on the store itself (None when it could
    not be put)."""

    run: str
    store: str
    started_at: datetime
    seconds: float
    servers: tuple[ServerScrub, ...]
    description: Outcome | None
    evidence: str | None
    check: CheckResult

    @property
    def outcomes(self) -> list[Outcome]:
        own = [self.description] if self.description else []
        return [*own, *(outcome for server in self.servers for outcome in server.outcomes)]

    def of(self, *states: State) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state in states]


def scrub(
    site: Site,
    tier_or_store: str,
    progress: Progress,
    *,
    server: str | None = None,
    sample: int | None = None,
    repair: bool = True,
) -> ScrubReport:
    """Every object that the plan's servers and file sets (or one of them) have on a store, against its SHA-256.

    `sample` is a share in percent, the plan's when it is not given. What was seen is in the report and its check.
    Raises `NotProven` when the store could not be listed or stopped to answer, `RepositoryError` where there is no
    repository, and `UsageError`.
    """
    places = _places(site, tier_or_store, server)
    share = site.plan.scrub.sample if sample is None else sample
    began, started_at = site.clock.monotonic(), site.clock.now()
    run = f"scrub-{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    store = site.bare_repository(*places[0]).store
    try:
        description = scrub_description(site.bare_repository(*places[0]), repair=repair)
        results = tuple(
            scrub_server(_order(site, name, tier, run, share, repair), clock=site.clock, progress=progress)
            for name, tier in places
        )
    except StoreError as error:
        raise NotProven(f"{store.name} could not be read whole: {error.message}", hint=error.hint) from error
    check = _check(store.name, results, description)
    seconds = site.clock.monotonic() - began
    seen = {
        "run": run, "store": store.name, "at": started_at.isoformat(), "seconds": round(seconds, 1),
        "verdict": check.verdict.value, "summary": check.summary, "servers": [result.told() for result in results],
    }  # fmt: skip
    evidence = _keep_evidence(store, layout.evidence("scrub", started_at, run.rpartition("-")[2]), seen, progress)
    return ScrubReport(run, store.name, started_at, seconds, results, description, evidence, check)


def objects_match_their_digests(
    site: Site, tier_or_store: str, progress: Progress, *, server: str | None = None
) -> CheckResult:
    """A scrub as the plan wants it, as a check."""
    try:
        return scrub(site, tier_or_store, progress, server=server).check
    except DrError as error:
        return not_proven(PROMISE, error.message, hint=error.hint)


def _places(site: Site, tier_or_store: str, server: str | None) -> list[tuple[str, str]]:
    """(server or file set, tier) for each that has a tier on the store."""
    if server is not None and tier_or_store in site.tiers(server):
        return [(server, tier_or_store)]
    name = site.name_of(tier_or_store)
    found = [
        (each, tier)
        for each in site.users
        for tier, store in site.storage_of(each).items()
        if store == name and server in (None, each)
    ]
    if not found:
        raise UsageError(
            f"no server or file set of the plan has anything on {tier_or_store}"
            if server is None
            else f"{server} has nothing on {tier_or_store}",
            hint="`dr plan show` shows what uses which store.",
        )
    return found


def _order(site: Site, server: str, tier: str, run: str, share: int, repair: bool) -> ScrubOrder:
    repository, others, closed = site.bare_repository(server, tier), list[Repository](), list[str]()
    for name in site.tiers(server):
        if name != tier:
            try:
                others.append(site.bare_repository(server, name))
            except DrError as error:
                closed.append(f"{name} cannot be opened: {error.message}")
    owner, sent = site.owner(server), sent_to(site, server, tier)
    everything = isinstance(owner, ServerOwner) and (sent is None or sent.send == "everything")
    window = site.plan_of(server).retention.on(tier).recovery_window if everything else None
    sample = Sample(share, 0.0 if share >= 100 else _where_to_go_on(repository.store, server, tier))
    filled = sent is None or sent.send != "nothing"
    return ScrubOrder(owner, repository, others, run, tuple(closed), window, sample, repair, filled)


def _where_to_go_on(store: ObjectStore, server: str, tier: str) -> float:
    """Where the last sample of the server ended, so that one after the other reads everything."""
    listed = ((layout.parse_evidence(info.key), info.key) for info in store.list(layout.EVIDENCE))
    scrubs = [(kind_and_time[1], key) for kind_and_time, key in listed if kind_and_time and kind_and_time[0] == "scrub"]
    for _, key in sorted(scrubs, reverse=True)[:_LOOKED_AT]:
        with contextlib.suppress(ObjectNotFound, ValueError, KeyError, TypeError):
            for seen in json.loads(read_all(store, key))["servers"]:
                if (seen["server"], seen["tier"]) == (server, tier):
                    return float(seen["sample"]["next"])
    return 0.0


def _keep_evidence(store: ObjectStore, key: str, seen: dict[str, Any], progress: Progress) -> str | None:
    try:
        store.put(key, Body.of(json.dumps(seen, indent=1).encode() + b"\n"))
    except DrError as error:
        progress.note(f"what the scrub saw could not be put on {store.name}: {error.message}")
        return None
    return key


def _check(store: str, results: Sequence[ServerScrub], description: Outcome | None) -> CheckResult:
    outcomes = [*([description] if description else []), *(o for result in results for o in result.outcomes)]
    objects, read = sum(result.objects for result in results), sum(result.read for result in results)
    offline, unread = sum(result.offline for result in results), [key for result in results for key in result.unread]
    broken = [o for o in outcomes if o.state in (State.LOST, State.FOUND)]
    undecided = [o for o in outcomes if o.state is State.UNDECIDED]
    mended = len(outcomes) - len(broken) - len(undecided)
    details = {
        "objects": objects,
        "read": read,
        "bytes": sum(result.bytes for result in results),
        "offline": offline,
        "repaired": mended,
        "damaged": [o.fault.key for o in (*broken, *undecided)][:10],
        "lost": [lost for result in results for lost in result.lost][:10],
    }
    looked = f"{read} of {objects} objects on {store} were read" + (
        f", {offline} lie in a class that must be recalled first" if offline else ""
    )
    if broken:
        what = "no tier holds whole" if broken[0].state is State.LOST else "are damaged or missing"
        return failed(PROMISE, f"{looked}: {len(broken)} {what}, the first is {broken[0].fault.key}", **details)
    if undecided:
        first = undecided[0]
        summary = f"{looked}: {len(undecided)} are damaged and not repaired, for {first.by}"
        return not_proven(PROMISE, summary, **details)
    if unread:
        reason = next(why for result in results for why in result.unread.values())
        return not_proven(PROMISE, f"{looked}: {len(unread)} could not be read: {reason}", **details)
    for result in results:
        if result.emptied is not None:
            return not_proven(
                PROMISE,
                f"{looked}: {store} holds no backup of {result.server}, while {result.emptied} does",
                hint=f"fill it: `dr replicate {result.server} --tier {result.tier} --from {result.emptied}`.",
                **details,
            )
    if not read:
        return not_proven(PROMISE, f"{looked}: nothing was seen", **details)
    repaired = f"; {mended} {'was' if mended == 1 else 'were'} repaired" if mended else ""
    return passed(PROMISE, f"{looked} and match{repaired}", **details)
