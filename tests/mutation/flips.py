"""Random single bytes of a repository changed: a scrub must find each, and a restore must refuse what it needs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dr_pipelines.errors import DrError
from dr_pipelines.operations import restore
from dr_pipelines.operations.scrub import scrub
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Silent
from tests.mutation.ledger import REFUSED, WRONG, Ledger, Trial
from tests.mutation.objects import Thing, path_of, things
from tests.mutation.repository_trials import copied
from tests.support.lived import Lived

NOT_READ = "reads none of it"


def flips(home: Lived, rng: random.Random, count: int, say: Callable[[str], None]) -> Ledger:
    """Half of them anywhere among all bytes, half with every kind of object as likely as any other, so that the small
    ones are met too. Each restore is a real one, of the backup that needs the object, to the end of the WAL, from the
    damaged tier alone; what no restore needs (the index, the break-glass bundle, facts, descriptions) only a scrub
    must find."""
    ledger = Ledger("one byte changed")
    with copied(home) as copy:
        pick = _picker(copy, rng)
        for number in range(1, count + 1):
            with flipped(copy, pick(anywhere=number % 2 == 0), rng) as (thing, at):
                seen = () if _scrub_passes(copy) else ("scrub",)
                ledger.add(Trial(thing.kind, f"{thing.key} at {at}", seen, _restore(copy, thing)))
            if number % 100 == 0:
                say(f"{number} of {count} bytes changed")
        if not _scrub_passes(copy):
            ledger.alarms.append("the repository is not whole when every byte is what it was")
        ledger.good += 1
    return ledger


def _picker(home: Lived, rng: random.Random) -> Callable[..., Thing]:
    found = things(home)
    sizes = [path_of(home, thing.key).stat().st_size for thing in found]
    by_kind: dict[str, list[Thing]] = {}
    for thing in found:
        by_kind.setdefault(thing.kind, []).append(thing)

    def pick(*, anywhere: bool) -> Thing:
        return rng.choices(found, sizes)[0] if anywhere else rng.choice(by_kind[rng.choice([*by_kind])])

    return pick


@contextmanager
def flipped(home: Lived, thing: Thing, rng: random.Random) -> Iterator[tuple[Thing, int]]:
    path = path_of(home, thing.key)
    whole = path.read_bytes()
    at = rng.randrange(len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ rng.randrange(1, 256)]) + whole[at + 1 :])
    yield thing, at
    path.write_bytes(whole)


def _scrub_passes(home: Lived) -> bool:
    try:
        return scrub(home.site(), "primary", Silent(), repair=False).check.passed
    except DrError:
        return False


def _restore(home: Lived, thing: Thing) -> str:
    if thing.label is None:
        return NOT_READ
    target = home.base / "restored"
    request = RestoreRequest("shop", target, label=thing.label, use_incrementals="always")
    try:
        restore(home.site(), request, Silent(), tier="primary")
    except DrError:
        return REFUSED
    shutil.rmtree(target, ignore_errors=True)
    return WRONG
