"""A file set with one tier damaged before all who look at it: a scrub, `dr files check`, and restores from that tier
alone. What is sealed anew by somebody who can is not tried here."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from dr_pipelines import operations
from dr_pipelines.errors import DrError
from dr_pipelines.operations.scrub import scrub
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.mutation.file_home import DOCS, FileHome, Thing
from tests.mutation.flips import NOT_READ
from tests.mutation.ledger import REFUSED, RIGHT, WRONG, Ledger, Trial
from tests.mutation.repository_damage import BYTES
from tests.support.file_sets import tree

KINDS = ("pack", "table", "changes", "list of archives", "manifest", "break-glass", "repository.json")
EXCHANGED = ("pack", "table", "changes", "list of archives", "manifest", "break-glass")
CHECKED = "files check"

Damaged = tuple[str, str | None]
"""What was damaged, and the snapshot whose restore reads it; None: none does."""
Damage = Callable[[FileHome, MemoryStore, random.Random], Damaged]


def file_damages() -> dict[str, Damage]:
    """By kind, in the order of the table."""
    return {
        **{f"{kind}: {how}": _of_bytes(kind, changes) for kind in KINDS for how, changes in BYTES.items()},
        **{f"{kind}: another's in its place": _replaced(kind) for kind in EXCHANGED},
        **{f"{kind}: swapped with another": _swapped(kind) for kind in EXCHANGED},
        "two objects swapped": _swapped(None),
        "all packs that a snapshot put removed": _packs_removed,
        "all lists of archives removed": _lists_removed,
        "a snapshot removed": _snapshot_removed,
    }


# --- damages ---


def _put(store: MemoryStore, key: str, data: bytes) -> None:
    store.put(key, Body.of(data), if_absent=False)


def _of(home: FileHome, kind: str | None) -> list[Thing]:
    return [thing for thing in home.things if kind in (None, thing.kind)]


def _of_bytes(kind: str, changes: Sequence[Callable[[bytes, random.Random], bytes | None]]) -> Damage:
    def damage(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
        thing = rng.choice(_of(home, kind))
        changed = rng.choice(changes)(read_all(store, thing.key), rng)
        if changed is None:
            store.delete(thing.key)
        else:
            _put(store, thing.key, changed)
        return thing.key, thing.label

    return damage


def _two(home: FileHome, kind: str | None, rng: random.Random) -> tuple[Thing, Thing]:
    """With different contents: every snapshot has the same break-glass script."""
    objects, things = home.objects["primary"], _of(home, kind)
    one = rng.choice(things)
    return one, rng.choice([other for other in things if objects[other.key] != objects[one.key]])


def _replaced(kind: str) -> Damage:
    def damage(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
        one, other = _two(home, kind, rng)
        _put(store, one.key, read_all(store, other.key))
        return f"{other.key} as {one.key}", one.label

    return damage


def _swapped(kind: str | None) -> Damage:
    def damage(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
        one, other = _two(home, kind, rng)
        first = read_all(store, one.key)
        _put(store, one.key, read_all(store, other.key))
        _put(store, other.key, first)
        return f"{one.key} and {other.key}", one.label or other.label

    return damage


def _removed(store: MemoryStore, things: Iterable[Thing]) -> str:
    keys = [thing.key for thing in things]
    for key in keys:
        store.delete(key)
    return f"{len(keys)} objects"


def _packs_removed(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
    begun = rng.choice(_of(home, "pack")).key.rpartition("-")[0]
    gone = [thing for thing in _of(home, "pack") if thing.key.startswith(begun)]
    return _removed(store, gone), gone[0].label


def _lists_removed(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
    return _removed(store, _of(home, "list of archives")), rng.choice([*home.truth])


def _snapshot_removed(home: FileHome, store: MemoryStore, rng: random.Random) -> Damaged:
    """With all that lies under its label."""
    label = rng.choice([*home.truth])
    return _removed(store, [thing for thing in home.things if f"/{label}/" in thing.key]), label


# --- who looks ---


def _checks(site: Site, home: FileHome) -> dict[str, bool]:
    """Whether each passes: a scrub, and all that `dr files check` says of each snapshot that is listed."""
    said: dict[str, bool] = {}

    def ask(name: str, look: Callable[[], Mapping[str, bool]]) -> None:
        try:
            found = look()
        except DrError:
            found = {name: False}
        for check, passes in found.items():
            said[check] = passes and said.get(check, True)

    def checked(label: str) -> dict[str, bool]:
        found = operations.check_snapshot(site, DOCS, label, "primary", Silent())
        changes = operations.changes_are_usual(site, DOCS, None if label == "latest" else label)
        return {result.name: result.passed for result in [*found, changes]}

    ask("scrub", lambda: {"scrub": scrub(site, "primary", Silent(), repair=False).check.passed})
    for label in _listed(site):
        ask(CHECKED, partial(checked, label))
    return said


def _listed(site: Site) -> list[str]:
    """And `latest`, which whoever cannot list asks for."""
    try:
        return ["latest", *(one.label for one in operations.list_snapshots(site, DOCS).snapshots)]
    except DrError:
        return ["latest"]


def _restore(site: Site, home: FileHome, label: str | None) -> str:
    """From the primary alone. What could not be restored is told; what was must be as it was."""
    if label is None:
        return NOT_READ
    target = home.base / "restored"
    try:
        report = operations.restore_files(site, DOCS, label, target, Silent(), tier="primary")
        if report.failed:
            return REFUSED
        return RIGHT if tree(target) == home.truth[label] else WRONG
    except DrError:
        return REFUSED
    finally:
        shutil.rmtree(target, ignore_errors=True)


class FileTrials:
    def __init__(self, home: FileHome, rng: random.Random) -> None:
        self._home, self._rng = home, rng
        self.ledger = Ledger("one tier of a file set damaged, the other whole")

    def run(self, count: int, say: Callable[[str], None]) -> Ledger:
        """`count` damages, every kind as often as any other."""
        self.try_good()
        damages = [*file_damages().items()]
        for number in range(1, count + 1):
            self.try_damage(*damages[(number - 1) % len(damages)])
            if number % 50 == 0:
                say(f"{number} of {count} file sets damaged")
        self.try_good()
        return self.ledger

    def try_good(self) -> None:
        site = self._home.site(self._home.stores())
        fails = [name for name, passes in _checks(site, self._home).items() if not passes]
        self.ledger.alarms += [f"{name} fails on a good file set" for name in fails]
        for label in self._home.truth:
            if (restore := _restore(site, self._home, label)) != RIGHT:
                self.ledger.alarms.append(f"a good {label} is not restored: {restore}")
        self.ledger.good += 1

    def try_damage(self, kind: str, damage: Damage) -> Trial:
        stores = self._home.stores()
        what, label = damage(self._home, stores["primary"], self._rng)
        site = self._home.site(stores)
        restore = _restore(site, self._home, label)
        seen = [name for name, passes in _checks(site, self._home).items() if not passes]
        trial = Trial(kind, what, (*seen, *(["restore"] if restore == REFUSED else [])), restore)
        self.ledger.add(trial)
        return trial


def file_flips(home: FileHome, rng: random.Random, count: int, say: Callable[[str], None]) -> Ledger:
    """Single bytes: half of them anywhere among all, half with every kind of object as likely as any other. A scrub
    must find each, a restore must refuse what it reads."""
    ledger = Ledger("one byte of a file set changed")
    sizes = [len(home.objects["primary"][thing.key]) for thing in home.things]
    for number in range(1, count + 1):
        anywhere = number % 2 == 0
        thing = rng.choices(home.things, sizes)[0] if anywhere else rng.choice(_of(home, rng.choice(KINDS)))
        stores = home.stores()
        data = bytearray(read_all(stores["primary"], thing.key))
        at = rng.randrange(len(data))
        data[at] ^= rng.randrange(1, 256)
        _put(stores["primary"], thing.key, bytes(data))
        site = home.site(stores)
        restore = _restore(site, home, thing.label)
        # What is read must be refused: right all the same would be luck.
        restore = WRONG if restore == RIGHT else restore
        ledger.add(Trial(thing.kind, f"{thing.key} at {at}", () if _scrub_passes(site) else ("scrub",), restore))
        if number % 100 == 0:
            say(f"{number} of {count} bytes changed")
    if not _scrub_passes(home.site(home.stores())):
        ledger.alarms.append("a scrub fails on a good file set")
    ledger.good += 1
    return ledger


def _scrub_passes(site: Site) -> bool:
    try:
        return scrub(site, "primary", Silent(), repair=False).check.passed
    except DrError:
        return False
