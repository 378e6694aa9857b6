"""Every integrity check of a stored backup fails for its own reason, passes on what it saw, and proves nothing where it
could not look."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.operations import check_backup, check_replica
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.encryption import decrypt, encrypt, generate_identity
from dr_pipelines.repository.manifest import encode
from dr_pipelines.site import Site
from dr_pipelines.storage.local import LocalStore
from tests.support import forked
from tests.support.lived import Lived
from tests.support.lived import lived as live_once

PASS, FAIL, NOT_PROVEN = Verdict
ALL = [
    "manifest_is_complete",
    "chain_is_complete",
    "objects_match_sha256",
    "contents_match_backup_manifest",
    "wal_is_continuous",
    "recipients_are_as_planned",
    "lock_is_in_force",
    "replica_equals",
]


@pytest.fixture(scope="module")
def life(identity: tuple[str, str]) -> Iterator[Lived]:
    with live_once(identity) as made:
        yield made


@pytest.fixture
def lived(life: Lived, folder: Path) -> Lived:
    return life.copy(folder)


def checks(lived: Lived, label: str, *, sample: int = 100, tier: str = "primary") -> dict[str, CheckResult]:
    found = check_backup(lived.site(), "shop", label, tier, Silent(), sample=sample)
    return {check.name: check for check in found}


def broken(lived: Lived, label: str, **how: int) -> dict[str, str]:
    """The checks that failed, with what they say; no other may be in doubt."""
    found = checks(lived, label, **how)
    assert not [check for check in found.values() if check.verdict is NOT_PROVEN]
    return {name: check.summary for name, check in found.items() if check.verdict is FAIL}


def test_a_whole_backup_passes_all_of_them_and_the_command_shows_them(lived: Lived) -> None:
    for label in (lived.full, lived.incremental):
        found = checks(lived, label)
        assert [*found] == ALL
        assert {check.verdict for check in found.values()} == {PASS}, found
    assert found["chain_is_complete"].details["chain"] == [lived.full, lived.incremental]
    assert found["recipients_are_as_planned"].details["objects"] >= 4
    assert "the identity at hand opens them" in found["recipients_are_as_planned"].summary
    assert found["replica_equals"].details["read"] == found["objects_match_sha256"].details["of"]
    plan = lived.base / "plan.yaml"
    plan.write_text(yaml.dump(lived.plan()))
    said = forked.dr("--plan", plan, "verify", "shop", lived.full, "--sample", "10%")
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.findall(r"^(?:PASS|SKIPPED) +(\w+):", said.stdout, re.MULTILINE) == ALL
    assert re.findall(r"^SKIPPED +(\w+):", said.stdout, re.MULTILINE) == ["lock_is_in_force"]
    lived.packs(lived.full)[0].unlink()
    failing = forked.dr("--plan", plan, "verify", "shop", lived.full, "--json")
    assert failing.returncode == 41
    assert [check["name"] for check in json.loads(failing.stdout)] == ALL


def flipped_pack(lived: Lived) -> set[str]:
    pack = lived.packs(lived.full)[0]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    return {"objects_match_sha256", "contents_match_backup_manifest"}


def missing_pack(lived: Lived) -> set[str]:
    lived.packs(lived.full)[0].unlink()
    return {
        "manifest_is_complete", "chain_is_complete", "objects_match_sha256", "contents_match_backup_manifest"
    }  # fmt: skip


def missing_segment(lived: Lived) -> set[str]:
    whole = sorted(path for path in lived.wal() if "partial" not in path.name and "history" not in path.name)
    whole[-1].unlink()
    return {"wal_is_continuous"}


def pack_in_clear_text(lived: Lived) -> set[str]:
    """Our manifest calls it right: only the plan tells."""
    return _replaced(lived, lambda plain: plain)


def pack_for_somebody_else(lived: Lived) -> set[str]:
    return _replaced(lived, lambda plain: encrypt(plain, [generate_identity().recipient])) | {
        "contents_match_backup_manifest"
    }


def _replaced(lived: Lived, make: Callable[[bytes], bytes]) -> set[str]:
    repository = lived.repository()
    backup = repository.backup("shop", lived.full)
    [path] = lived.packs(lived.full)
    data = make(decrypt(path.read_bytes(), repository.codec.identities))
    path.write_bytes(data)
    [pack] = backup.archive.packs
    named = pack.model_copy(update={"size": len(data), "sha256": sha256(data).hexdigest()})
    archive = backup.archive.model_copy(update={"packs": (named,)})
    manifest = encode(backup.model_copy(update={"archive": archive}))
    (lived.base / "primary" / backup.layout.manifest).write_bytes(manifest)
    return {"recipients_are_as_planned", "replica_equals"}


def replica_that_differs(lived: Lived) -> set[str]:
    pack = lived.packs(lived.full, "secondary")[0]
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    return {"replica_equals"}


@pytest.mark.parametrize(
    "damage",
    [flipped_pack, missing_pack, missing_segment, pack_in_clear_text, replica_that_differs],
    ids=lambda damage: damage.__name__,
)
def test_damage_fails_the_checks_that_are_there_for_it(damage: Callable[[Lived], set[str]], lived: Lived) -> None:
    named = damage(lived)
    assert set(broken(lived, lived.full)) == named
    if "wal_is_continuous" not in named:
        assert set(broken(lived, lived.incremental)) == named & {"chain_is_complete"}


def test_a_pack_that_somebody_else_can_read_is_told_from_ours(lived: Lived) -> None:
    pack_for_somebody_else(lived)
    found = checks(lived, lived.full)
    assert found["recipients_are_as_planned"].verdict is FAIL
    assert "is not encrypted for the identity at hand" in found["recipients_are_as_planned"].summary
    assert found["contents_match_backup_manifest"].verdict is NOT_PROVEN


def test_another_recipient_in_the_plan_is_seen_without_a_key(lived: Lived) -> None:
    lived.keys = (lived.keys[0], str(generate_identity().recipient))
    said = checks(lived, lived.full)["recipients_are_as_planned"]
    assert said.verdict is FAIL
    assert "whom the plan does not name" in said.summary and "cannot be read by" in said.summary


def test_where_the_recipients_are_not_set_the_identity_tells_them_or_nothing_is_proven(lived: Lived) -> None:
    plan = lived.plan(key=False)
    stores = {tier: LocalStore(lived.base / tier, tier) for tier in ("primary", "secondary")}

    def said(identity: str | None, *recipients: str) -> Verdict:
        plan["encryption"]["recipients"] = list(recipients)
        site = Site(Plan.model_validate(plan), stores=stores, identity=identity)
        [found] = check_backup(site, "shop", lived.full, "primary", Silent(), only={"recipients_are_as_planned"})
        return found.verdict

    absent, other = "${ENV:DR_TEST_ABSENT}", str(generate_identity().recipient)
    assert said(lived.keys[0], absent) is PASS
    assert said(None, absent) is NOT_PROVEN
    assert said(generate_identity().reveal(), absent) is NOT_PROVEN
    assert said(lived.keys[0], absent, "${ENV:DR_TEST_ABSENT_TOO}") is NOT_PROVEN
    assert said(lived.keys[0], absent, other) is FAIL


def test_a_copy_that_is_not_there_is_late_only_when_the_plan_says_so(lived: Lived) -> None:
    (lived.base / "secondary" / lived.repository().backup("shop", lived.incremental).layout.manifest).unlink()
    found = checks(lived, lived.incremental)["replica_equals"]
    assert found.passed and found.details["applies"] is False and "not on secondary yet" in found.summary
    strict = lived.site(replication={"secondary": {"lag": "1 second"}})
    late = check_backup(strict, "shop", lived.incremental, "primary", Silent(), only={"replica_equals"})
    assert [(check.verdict, "should be" in check.summary) for check in late] == [(FAIL, True)]
    elsewhere = lived.site(replication={"secondary": {"send": "nothing"}})
    assert check_backup(elsewhere, "shop", lived.full, "primary", Silent(), only={"replica_equals"}) == []


def test_a_copy_is_checked_where_it_lies(lived: Lived) -> None:
    found = check_replica(lived.site(), "shop", lived.incremental, "secondary", Silent())
    assert {check.verdict for check in found} == {PASS}
    assert [check.name for check in found][:2] == ["replica_equals", "chain_is_complete"]
    lived.packs(lived.full, "secondary")[0].unlink()
    found = check_replica(lived.site(), "shop", lived.incremental, "secondary", Silent())
    assert [check.name for check in found if check.verdict is FAIL] == ["chain_is_complete"]


def test_without_a_key_contents_and_nothing_else_are_not_proven(lived: Lived) -> None:
    told = check_backup(lived.site(key=False), "shop", lived.full, "primary", Silent())
    found = {check.name: check.verdict for check in told}
    assert found.pop("contents_match_backup_manifest") is NOT_PROVEN
    assert set(found.values()) == {PASS}


def test_another_tier_that_is_away_leaves_its_copy_unproven(lived: Lived) -> None:
    (lived.base / "secondary").rename(lived.base / "unplugged")
    found = {name: check.verdict for name, check in checks(lived, lived.full).items()}
    assert found.pop("replica_equals") is NOT_PROVEN
    assert set(found.values()) == {PASS}
