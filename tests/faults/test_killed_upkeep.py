"""`dr retention apply` and `undo`, `dr scrub`, `dr replicate`, killed at one write after another or stopped by Ctrl-C:
what is promised can be restored whenever that is, and the next run ends as an undisturbed one does. Invariants 1 and 3.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import IntegrityError
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import find_sources
from dr_pipelines.progress import Silent
from dr_pipelines.repository import layout
from dr_pipelines.repository.catalog import read_catalog
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.manifest import StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.storage.local import LocalStore
from tests.support import replicas
from tests.support.estate import SERVER, Estate
from tests.support.expiring import about_to_by, content, promised, require, require_work
from tests.support.killed import Tiers, serving, spread
from tests.support.tiers import BACKUPS, FIRST, FULL, SECOND, flip, tier, wal_key
from tests.support.tiers import content as bytes_of

BOTH = ("primary", "secondary")
APPLY, UNDO, SCRUB = ("retention", "apply", SERVER, "--yes"), ("retention", "undo", SERVER), ("scrub", "primary")
REPLICATE = ("replicate", SERVER)
CTRL_C = 128 + signal.SIGINT


# --- letting go, and taking that back -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "argv"), [("expire", APPLY), ("prune", APPLY), ("undo", UNDO)])
def test_a_killed_expiry_prune_or_undo_is_ended_by_the_next(name: str, argv: tuple[str, ...], tmp_path: Path) -> None:
    begun, folder = _estate(name, tmp_path)
    instants, labels = promised(begun), {one.label for one in begun.manifests()}
    ended, writes = _undisturbed(tmp_path, folder, argv)
    require_work(name, content(begun.store), ended)
    for write in spread(len(writes), 4):
        with serving(tmp_path / f"{write}", folder) as tiers:
            tiers.kill(*argv, write=write)
            require(begun, instants, tiers.store())
            if name == "expire":
                assert labels <= _can_come_back(tiers.store())
            tiers.run(*argv)
            require(begun, instants, tiers.store())
            assert content(tiers.store()) == ended, f"killed at write {write}"
            if name == "expire" and write == len(writes):
                tiers.run(*UNDO)
                require(begun, instants, tiers.store())
                assert labels == {one.label for one in begun.manifests(tiers.store())}


@pytest.mark.parametrize("name", ["expire", "prune"])
def test_ctrl_c_stops_an_expiry_or_a_prune_and_the_next_ends_it(name: str, tmp_path: Path) -> None:
    begun, folder = _estate(name, tmp_path)
    instants = promised(begun)
    ended, writes = _undisturbed(tmp_path, folder, APPLY)
    with serving(tmp_path / "stopped", folder) as tiers:
        assert tiers.interrupt(*APPLY, write=len(writes) // 2) == CTRL_C
        require(begun, instants, tiers.store())
        assert content(tiers.store()) not in (content(begun.store), ended)
        tiers.run(*APPLY)
        require(begun, instants, tiers.store())
        assert content(tiers.store()) == ended


def test_ctrl_c_while_the_store_is_down_is_not_followed_by_trying_again(tmp_path: Path) -> None:
    begun, folder = _estate("prune", tmp_path)
    with serving(tmp_path / "stopped", folder) as tiers:
        assert tiers.interrupt(*APPLY, write=12, down=True) == CTRL_C
        assert 0 < tiers.gate.held_then <= tiers.gate.refused < 6 * tiers.gate.held_then  # it has 6 attempts
        require(begun, promised(begun), tiers.store())


def _estate(name: str, tmp_path: Path) -> tuple[Estate, Path]:
    begun = about_to_by(SystemClock().now(), name)
    begun.write_to(tmp_path / "begun" / "primary")
    return begun, tmp_path / "begun"


def _undisturbed(tmp_path: Path, folder: Path, argv: tuple[str, ...]) -> tuple[set[str], list[str]]:
    with serving(tmp_path / "undisturbed", folder) as tiers:
        writes = tiers.run(*argv)
        return content(tiers.store()), writes


def _can_come_back(store: ObjectStore) -> set[str]:
    """What is there, or was let go and is whole."""
    catalog, sizes = read_catalog(store, SERVER), {info.key: info.size for info in store.list()}
    gone = (expired.manifest for expired in catalog.expired)
    found = [*catalog.backups, *(one for one in gone if all(sizes.get(o.key) == o.size for o in one.objects))]
    return {backup.label for backup in found}


# --- scrubbing ----------------------------------------------------------------------------------------------

LOST = 11
"""The exit code of a scrub that found what nobody has whole."""


def test_a_killed_or_interrupted_scrub_is_ended_by_the_next(tmp_path: Path) -> None:
    good, damaged = _damaged(tmp_path / "begun")
    with serving(tmp_path / "undisturbed", tmp_path / "begun", BOTH) as tiers:
        writes = tiers.run(*SCRUB, code=LOST)
        ended = _scrubbed(tiers.store())
    assert {key for key in good if ended.get(key) != good[key]} == {*_lost()}
    assert sum("/damage/" in key or key.endswith(".damaged") for key in ended) == len(_lost())
    for write in spread(len(writes), 4):
        with serving(tmp_path / f"{write}", tmp_path / "begun", BOTH) as tiers:
            tiers.kill(*SCRUB, write=write)
            _assert_nothing_is_worse(tiers, good, damaged)
            tiers.run(*SCRUB, code=LOST)
            assert _scrubbed(tiers.store()) == ended, f"killed at write {write}"
    with serving(tmp_path / "stopped", tmp_path / "begun", BOTH) as tiers:
        assert tiers.interrupt(*SCRUB, write=2) == CTRL_C
        _assert_nothing_is_worse(tiers, good, damaged)
        tiers.run(*SCRUB, code=LOST)
        assert _scrubbed(tiers.store()) == ended


def _lost() -> tuple[str, str]:
    """On both tiers."""
    return BACKUPS[1].archive.packs[0].key, wal_key(tier("primary"), 4)


def _damaged(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The primary when it was whole, and as it is."""
    on = [tier(name, store=LocalStore(folder / name, name)) for name in BOTH]
    good = bytes_of(on[0])
    for key in (FULL.archive.packs[0].key, BACKUPS[2].layout.manifest, wal_key(on[0], 6)):
        flip(on[0], key)
    for key in _lost():
        for repository in on:
            flip(repository, key)
    return good, bytes_of(on[0])


def _scrubbed(store: ObjectStore) -> dict[str, bytes]:
    """Marks have names and times of their own."""
    return {
        key.partition("/damage/")[0] + "/damage/" if "/damage/" in key else key: b"" if "/damage/" in key else data
        for key, data in bytes_of(Repository(store, Codec(1), store.name)).items()
    }


def _assert_nothing_is_worse(tiers: Tiers, good: dict[str, bytes], damaged: dict[str, bytes]) -> None:
    on = [Repository(tiers.store(name), Codec(1), name) for name in BOTH]
    there = bytes_of(on[0])
    assert all(there[key] in (good[key], damaged[key]) for key in damaged)
    assert {layout.damaged_wal(key) for key in there} <= {None, _lost()[1]}
    assert not any(whole.layout.damages in key for whole in (BACKUPS[0], BACKUPS[2]) for key in there)
    for label in (FIRST, SECOND):
        assert _restores(label, on), label


def _restores(label: str, on: list[Repository]) -> bool:
    request = RestoreRequest(SERVER, Path("/nowhere"), RecoveryTarget("immediate"), label=label)
    try:
        return bool(find_sources(request, on, runner=Runner(), progress=Silent())[0])
    except IntegrityError:
        return False


# --- copying ------------------------------------------------------------------------------------------------


def test_a_killed_copy_is_ended_by_the_next_which_does_not_copy_again(tmp_path: Path) -> None:
    _fill(tmp_path / "begun")
    with serving(tmp_path / "undisturbed", tmp_path / "begun", BOTH) as tiers:
        writes = tiers.run(*REPLICATE)
        assert replicas.contents(tiers.store("secondary")) == replicas.contents(tiers.store("primary"))
    for write in spread(len(writes), 4):
        with serving(tmp_path / f"{write}", tmp_path / "begun", BOTH) as tiers:
            tiers.kill(*REPLICATE, write=write)
            copied = read_catalog(tiers.store("secondary"), SERVER).backups
            replicas.assert_restorable_or_invisible(tiers.store("secondary"))
            left = {
                f"PUT /{tiers.stores['secondary'].name}/{key}" for key in replicas.contents(tiers.store("secondary"))
            }
            assert not left & {*tiers.run(*REPLICATE)}
            assert replicas.contents(tiers.store("secondary")) == replicas.contents(tiers.store("primary"))
            claims = [info.key for info in tiers.store("secondary").list() if "/claims/" in info.key]
            assert not claims or copied  # beside a manifest they say nothing


def _fill(folder: Path) -> None:
    """One backup of packs that are sent on while they arrive."""
    primary, _ = on = [LocalStore(folder / name, name) for name in BOTH]
    for store in on:
        Repository(store, Codec(1), store.name).initialise()
    made, packs = replicas.backups()[0], []
    for number in range(6):
        body, key = Body.of(os.urandom(5 << 18)), made.layout.pack(number, ".zst")
        primary.put(key, body)
        packs.append(StoredObject(key=key, size=body.size, sha256=body.sha256))
    archive = made.archive.model_copy(update={"packs": tuple(packs)})
    for named in (made.backup_manifest, made.index):
        primary.put(named.key, Body.of(f"the content of {named.key}".encode()))
    primary.put(made.layout.manifest, Body.of(encode(made.model_copy(update={"archive": archive}))))
