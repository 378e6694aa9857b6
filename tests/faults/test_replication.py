"""Replication that fails at any call, or is killed: what is on the target can be restored or is not seen, and the next
run makes it whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.errors import DrError
from dr_pipelines.operations.replication import replica_is_complete, replicate
from dr_pipelines.progress import Silent
from dr_pipelines.repository.catalog import read_catalog
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import parse_wal_key
from dr_pipelines.repository.manifest import StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from tests.support.faulty_store import FaultyStore
from tests.support.programs import DR
from tests.support.replicas import backups, contents, empty, filled, site_of

CLOCK = SystemClock()


def assert_restorable_or_invisible(target: ObjectStore) -> None:
    catalog = read_catalog(target, "shop")
    assert catalog.usable == catalog.backups
    assert not catalog.problems
    for backup in catalog.backups:
        for stored in backup.objects:
            assert hashlib.sha256(read_all(target, stored.key)).hexdigest() == stored.sha256
    for info in target.list():
        if (key := parse_wal_key(info.key)) is not None:
            assert hashlib.sha256(read_all(target, info.key)).hexdigest() == key.sha256


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_failure_at_any_call_leaves_what_can_be_restored_and_the_next_run_ends_it(
    side: str, stays_down: bool
) -> None:
    call, failures = 0, 0
    while True:
        call += 1
        stores = {"primary": filled(), "secondary": empty("secondary")}
        faulty = FaultyStore(stores[side], fail_at=call, stays_down=stays_down)
        try:
            replicate(site_of({**stores, side: faulty}), "shop", "secondary", Silent())
        except DrError:
            failures += 1
        assert_restorable_or_invisible(stores["secondary"])
        with contextlib.suppress(DrError):
            replicate(site_of(stores), "shop", "secondary", Silent())
        assert contents(stores["secondary"]) == contents(stores["primary"])
        if faulty.calls < call:
            break
    assert failures > 20


@pytest.mark.parametrize("flip_at", [0, 5])
def test_a_source_that_gives_back_other_bytes_is_not_copied(flip_at: int) -> None:
    source, target = filled(), empty("secondary")
    flipping = FaultyStore(source, flip_at=flip_at)
    with pytest.raises(DrError):
        replicate(site_of({"primary": flipping, "secondary": target}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    assert_restorable_or_invisible(target)


def test_what_an_earlier_run_had_left_and_is_gone_meanwhile_is_not_believed_to_be_there() -> None:
    source, target = filled(), empty("secondary")
    backup = read_catalog(source, "shop").backups[0]
    left = backup.archive.packs[0].key
    target.put(left, Body.of(read_all(source, left)))

    class Pruned(FaultyStore):
        """Someone removes what was left, once it was listed."""

        def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
            if key.startswith(backup.layout.claims):  # put once what is there was listed
                target.delete(left)
            return super().put(key, body, **asked)

    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": Pruned(target)}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    replicate(site_of({"primary": source, "secondary": target}), "shop", "secondary", Silent())
    assert contents(target) == contents(source)


def test_a_store_that_lists_not_all_is_not_believed_to_hold_a_copy() -> None:
    source, target = filled(), empty("secondary")
    loses = FaultyStore(target, loses_puts=True)
    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": loses}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups


def test_a_store_that_loses_what_it_confirmed_has_no_copy_and_gets_another() -> None:
    source, target = filled(), empty("secondary")

    class LosesPacks(FaultyStore):
        def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
            info = super().put(key, body, **asked)
            if "/packs/" in key:
                target.delete(key)
            return info

    with pytest.raises(DrError, match="not on secondary any more"):
        replicate(site_of({"primary": source, "secondary": LosesPacks(target)}), "shop", "secondary", Silent())
    assert not read_catalog(target, "shop").backups
    both = site_of({"primary": source, "secondary": target})
    label = read_catalog(source, "shop").backups[0].label
    assert replica_is_complete(both, "shop", label, "secondary").verdict is Verdict.FAIL
    replicate(both, "shop", "secondary", Silent())
    assert contents(target) == contents(source)


def test_a_killed_copy_is_ended_by_the_next(tmp_path: Path) -> None:
    primary, secondary = (LocalStore(tmp_path / tier, tier) for tier in ("primary", "secondary"))
    _write_plan(tmp_path)
    for store in (primary, secondary):
        Repository(store, Codec(1), store.name).initialise()
    _fill_with_packs(primary)
    packs = secondary.root / "servers" / "shop" / "backups"
    process = subprocess.Popen([DR, "replicate", "shop"], env={**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")})
    while not [*packs.glob("*/packs/0*")]:
        assert process.poll() is None
        CLOCK.wait(0.002)
    process.kill()
    process.wait()
    left = {*packs.glob("*/packs/0*")}
    assert left
    assert not read_catalog(secondary, "shop").backups
    before = {path: path.stat().st_mtime_ns for path in left}
    env = {**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")}
    subprocess.run([DR, "replicate", "shop"], env=env, check=True)
    assert contents(secondary) == contents(primary)
    assert {path: path.stat().st_mtime_ns for path in left} == before
    assert not [*packs.glob("*/claims/*")]


def _write_plan(folder: Path) -> None:
    stores = {tier: {"type": "local", "path": tier} for tier in ("primary", "secondary")}
    shop = {
        "connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {tier: tier for tier in stores},
    }  # fmt: skip
    plan = {"version": 1, "name": "test", "encryption": "none", "storage": stores, "databases": {"shop": shop}}
    (folder / "plan.yaml").write_text(yaml.dump(plan))


def _fill_with_packs(store: ObjectStore) -> None:
    """One backup of many objects: to be killed in the midst of."""
    made = backups()[0]
    packs = []
    for number in range(60):
        body = Body.of(os.urandom(1 << 20))
        key = made.layout.pack(number, ".zst")
        store.put(key, body)
        packs.append(StoredObject(key=key, size=body.size, sha256=body.sha256))
    archive = made.archive.model_copy(update={"packs": tuple(packs)})
    for named in (made.backup_manifest, made.index):
        store.put(named.key, Body.of(f"the content of {named.key}".encode()))
    store.put(made.layout.manifest, Body.of(encode(made.model_copy(update={"archive": archive}))))
