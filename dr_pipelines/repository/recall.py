"""Objects whose bytes are offline are asked for, all at once, and waited for.

Asking is what a restore may do to a store that is open for reading only: nothing that is stored changes. It costs
money, so what it costs is said first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, RecallPending, StoreError
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.progress import Progress
from dr_pipelines.storage.base import Availability, ObjectStore

POLL_SECONDS = 300.0
_ABREAST = 16
"""Objects that are asked about or asked for at a time."""


@dataclass(frozen=True)
class Needed:
    """An object that is to be read; `storage_class` is None for the store's ordinary one."""

    tier: str
    store: ObjectStore
    key: str
    size: int
    storage_class: str | None

    def availability(self) -> Availability:
        return self.store.stat(self.key).availability


def availabilities(objects: Sequence[Needed]) -> Iterator[tuple[Needed, Availability]]:
    """As the stores answer, some at a time, in order."""
    with ThreadPoolExecutor(_ABREAST, thread_name_prefix="availability") as pool:
        for start in range(0, len(objects), _ABREAST):
            batch = objects[start : start + _ABREAST]
            yield from zip(batch, pool.map(Needed.availability, batch), strict=True)


class Needs(Protocol):
    """What somebody is going to read."""

    def to_ask_about(self) -> Sequence[Needed]:
        """Those whose storage class does not promise that they are at hand."""

    def terms(self, tier: str) -> StorageTerms: ...

    def cost(self, recalled: Sequence[Needed], *, urgent: bool) -> float:
        """Of reading all of it."""


class Reading:
    """Objects that are going to be read, wherever each lies. `terms` by tier."""

    def __init__(self, objects: Sequence[Needed], terms: Mapping[str, StorageTerms]) -> None:
        self._objects, self._terms = objects, terms

    def to_ask_about(self) -> Sequence[Needed]:
        return [found for found in self._objects if self.terms(found.tier).may_be_offline(found.storage_class)]

    def terms(self, tier: str) -> StorageTerms:
        return self._terms.get(tier, StorageTerms())

    def cost(self, recalled: Sequence[Needed], *, urgent: bool) -> float:
        keys = {found.key for found in recalled}
        return sum(self._cost_of(found, urgent=urgent and found.key in keys) for found in self._objects)

    def _cost_of(self, found: Needed, *, urgent: bool) -> float:
        return self.terms(found.tier).cost_of_reading(found.size, found.storage_class, urgent=urgent)


@dataclass(frozen=True)
class Offline:
    """What is needed and cannot be read yet: `arriving` was asked for before, `asleep` was not. `seconds` is how
    long the slowest takes at most, `cost` that of reading all of it."""

    asleep: tuple[Needed, ...]
    arriving: tuple[Needed, ...]
    seconds: float
    cost: float

    @property
    def objects(self) -> tuple[Needed, ...]:
        return self.asleep + self.arriving

    @property
    def bytes(self) -> int:
        return sum(found.size for found in self.objects)


def find_offline(needs: Needs, *, urgent: bool = False) -> Offline:
    """Raises what the stores raise."""
    found = list(availabilities(needs.to_ask_about()))
    asleep = tuple(needed for needed, state in found if state is Availability.OFFLINE)
    arriving = tuple(needed for needed, state in found if state is Availability.ARRIVING)
    seconds = [
        needs.terms(needed.tier).recall_seconds(needed.storage_class, urgent=urgent) for needed in asleep + arriving
    ]
    return Offline(asleep, arriving, max(seconds, default=0.0), needs.cost(asleep + arriving, urgent=urgent))


def bring_back(
    offline: Offline,
    *,
    urgent: bool,
    wait: bool,
    clock: Clock,
    progress: Progress,
    note: Callable[[str], None],
    meanwhile: Callable[[Sequence[Needed]], None] = lambda away: None,
) -> None:
    """Ask for what is asleep; return when all is there. While it waits, `meanwhile` is called at each look with what is
    still away.

    Raises `RecallPending` when not everything is there at once and `wait` is not wanted, `StoreError` when something
    could not be asked for.
    """
    if not offline.objects:
        return
    if wait:
        note(f"{told(offline)}; waiting for it")
    pending = ask(offline, urgent=urgent)
    if pending and not wait:
        raise RecallPending(f"{told(offline)}; nothing was changed here", hint=again_in(offline))
    while pending := _still_away(pending, progress, note):
        meanwhile(pending)
        clock.wait(POLL_SECONDS)


def ask(offline: Offline, *, urgent: bool) -> list[Needed]:
    """For all that is asleep, whatever becomes of one; returns what is not there yet. Raises `StoreError` when
    something could not be asked for."""

    def recall(needed: Needed) -> Availability | DrError:
        try:
            return needed.store.recall(needed.key, urgent=urgent)
        except DrError as error:
            return error

    asleep = offline.asleep
    with ThreadPoolExecutor(_ABREAST, thread_name_prefix="recall") as pool:
        answers = list(zip(asleep, pool.map(recall, asleep), strict=True))
    refused = [(needed, answer) for needed, answer in answers if isinstance(answer, DrError)]
    if refused:
        needed, error = refused[0]
        raise StoreError(
            f"{len(refused)} of {len(asleep)} offline objects could not be asked for; {needed.key} on {needed.tier}: "
            + error.message,
            hint=error.hint or "the others were asked for: run the same command again when this is mended.",
        )
    return [*(needed for needed, answer in answers if answer is not Availability.ONLINE), *offline.arriving]


def _still_away(pending: Sequence[Needed], progress: Progress, note: Callable[[str], None]) -> list[Needed]:
    """A store that does not answer for a while must not end a wait of hours."""
    try:
        found = list(availabilities(pending))
    except DrError as error:
        if not error.transient:
            raise
        note(f"whether it has arrived could not be seen: {error.message}")
        return list(pending)
    progress.advance(sum(needed.size for needed, state in found if state is Availability.ONLINE))
    return [needed for needed, state in found if state is not Availability.ONLINE]


def tiers_of(offline: Offline) -> tuple[str, ...]:
    return tuple(sorted({found.tier for found in offline.objects}))


def told(offline: Offline) -> str:
    """That it was asked for, in words: what, where, how long it takes, what it costs."""
    asked, arriving = len(offline.asleep), len(offline.arriving)
    tiers = " and ".join(tiers_of(offline))
    what = f"{_objects(asked + arriving)} ({offline.bytes / 1e9:.3g} GB) of {tiers} are in offline storage"
    if not asked:
        how = "all were asked for before"
    elif not arriving:
        how = "all were asked for just now"
    else:
        how = f"{asked} were asked for just now, {arriving} before"
    return f"{what}: {how}, and arrive within {_span(offline.seconds)}; reading them costs about {offline.cost:.2f}"


def again_in(offline: Offline) -> str:
    """What a person does next who does not wait."""
    return f"run the same command again in {_span(offline.seconds)}, or with --wait to go on by itself."


def foretold(offline: Offline) -> str:
    """What is offline, before anything is asked for."""
    tiers = " and ".join(tiers_of(offline))
    what = f"{_objects(len(offline.objects))} ({offline.bytes / 1e9:.3g} GB) of {tiers} must be recalled first"
    return f"{what}, which takes {_span(offline.seconds)}; reading them costs about {offline.cost:.2f}"


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _span(seconds: float) -> str:
    if seconds <= 0:
        return "some hours"
    if seconds < 2 * 3600:
        return f"about {timedelta(seconds=seconds).total_seconds() / 60:.0f} minutes"
    return f"about {seconds / 3600:.0f} hours"
