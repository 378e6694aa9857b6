"""A backup is proven by a restore from one tier alone: what passes, what fails, what is not proven, and what stays."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines.checks import CheckResult, Verdict, failed, passed
from dr_pipelines.errors import BackupNotFound, RestoreError, ServerError, StoreUnavailable
from dr_pipelines.operations import ValidationReport, preview_restore, validate_backup
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Silent
from dr_pipelines.repository.marks import Marks
from dr_pipelines.repository.validations import read_validations
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.wrappers import Forwarding
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.suite import Suite
from tests.support import forked
from tests.support.lived import Lived

PASS, FAIL, NOT_PROVEN = Verdict


def rows_are(expected: int) -> Any:
    def orders_are_there(copy: RestoredCopy) -> CheckResult:
        ((rows,),) = copy.server().ask("SELECT count(*) FROM orders")
        judged = passed if rows == expected else failed
        return judged("orders_are_there", f"{rows} rows", rows=rows, in_recovery=copy.server().in_recovery())

    return orders_are_there


def validate(
    lived: Lived, label: str, tier: str = "primary", *, site: Site | None = None, **checks: Any
) -> ValidationReport:
    suite = Suite(**checks)
    return validate_backup(site or lived.site(), "shop", label, tier, Silent(), run="a test", suite=suite)


def marks(lived: Lived, label: str, tier: str = "primary") -> Marks:
    return lived.repository(tier).catalog("shop").marks[label]


def verdicts(report: ValidationReport) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in report.checks}


def nothing_is_left(lived: Lived) -> bool:
    return not [*(lived.base / "state" / "shop" / "scratch").iterdir()]


def test_a_good_backup_is_proven_where_it_told_its_facts_and_at_the_end(lived: Lived) -> None:
    lived.tell(lived.full, lived.facts(), lived.facts("void", tables=()))

    def files_are_there(copy: RestoredCopy) -> CheckResult:
        there = copy.scratch.at is None and (copy.scratch.data_dir / "PG_VERSION").exists()
        return (passed if there else failed)("files_are_there", "")

    report = validate(
        lived,
        lived.full,
        before_start=(files_are_there,),
        at_facts=(rows_are(lived.told),),
        at_end=(rows_are(lived.rows), rows_are(lived.rows)),
    )
    assert report.check.verdict is PASS, report.check
    assert verdicts(report) == {"data_was_seen": PASS, "files_are_there": PASS, "orders_are_there": PASS}
    assert [check.details.get("in_recovery") for check in report.checks] == [None, None, True, False, False]
    seen = report.validation
    assert {"plan", "fetch", "write", "start", "replay", "validate"} <= set(seen.phases)
    assert seen.bytes > 20e6 and seen.wal_bytes > 0 and seen.reached is not None and seen.reached > lived.lsn
    assert 0 < seen.recovery_seconds < sum(seen.phases.values())
    assert set(report.speeds) == {"fetch", "replay"}
    [kept] = read_validations(lived.repository().store, "shop")
    assert (kept.key, kept.validation) == (report.evidence, seen)
    proof = marks(lived, lived.full).proven()
    assert proof is not None and (proof.kind, proof.verdict) == ("validate", "pass")
    assert nothing_is_left(lived)


def test_an_incremental_from_the_secondary_with_the_primary_gone(lived: Lived) -> None:
    (lived.base / "primary").rename(lived.base / "lost")
    left = lived.base / "state" / "shop" / "scratch" / "20200101T000000Z-full.partial"
    left.mkdir(parents=True)  # of one that was killed
    (left / "file").write_text("x")
    report = validate(lived, "latest", "secondary", at_end=(rows_are(lived.rows),))
    assert report.check.verdict is PASS, report.check
    assert (report.validation.label, report.validation.tier) == (lived.incremental, "secondary")
    assert report.validation.chain == (lived.full, lived.incremental)
    assert marks(lived, lived.incremental, "secondary").validated() is not None
    assert nothing_is_left(lived)


def first_choice(lived: Lived, **wanted: Any) -> tuple[str, str, tuple[str, ...]]:
    request = RestoreRequest("shop", lived.base / "restored", **wanted)
    seen = preview_restore(lived.site(), request, Silent())
    return seen.chain[-1], seen.tier, seen.notes


def test_a_damaged_pack_fails_and_no_restore_begins_there_until_it_is_proven_again(lived: Lived) -> None:
    [pack] = lived.packs(lived.incremental)
    good = pack.read_bytes()
    pack.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    before = first_choice(lived, use_incrementals="always")
    assert before[:2] == (lived.incremental, "primary")
    report = validate(lived, lived.incremental, at_end=(rows_are(lived.rows),))
    assert report.check.verdict is FAIL
    assert "does not restore from primary" in report.check.summary and str(pack.name) in report.check.summary
    assert set(verdicts(report).values()) == {NOT_PROVEN} and len(report.checks) == 2
    assert nothing_is_left(lived)
    label, tier, notes = first_choice(lived, use_incrementals="always")
    assert (label, tier) == (lived.full, "primary")
    assert any(f"{lived.incremental} on primary is left out: its validation failed" in note for note in notes)
    label, _, notes = first_choice(lived, label=lived.incremental)
    assert label == lived.incremental and any("is not good, as far as is known" in note for note in notes)
    pack.write_bytes(good)
    assert validate(lived, lived.incremental).check.verdict is PASS
    assert first_choice(lived, use_incrementals="always")[0] == lived.incremental


def test_wal_that_is_missing_fails(lived: Lived) -> None:
    for segment in lived.wal():
        if not segment.name.endswith(".json"):
            segment.unlink()
    report = validate(lived, lived.full)
    assert (report.check.verdict, report.check.details["error"]) == (FAIL, "WalGap")
    proof = marks(lived, lived.full).validated()
    assert proof is not None and proof.verdict == "fail"


def test_a_check_that_fails_or_cannot_be_made_is_told_and_hides_no_other(lived: Lived) -> None:
    def raises(error: Exception) -> Any:
        def could_not_look(copy: RestoredCopy) -> CheckResult:
            raise error

        return could_not_look

    lived.tell(lived.full, None)
    at_end = (raises(ServerError("no such thing")), raises(ValueError("a bug")), rows_are(lived.rows))
    report = validate(lived, lived.full, at_facts=(rows_are(2),), at_end=at_end)
    assert report.check.verdict is NOT_PROVEN
    assert [check.verdict for check in report.checks] == [PASS, NOT_PROVEN, NOT_PROVEN, NOT_PROVEN, PASS]
    assert "no facts" in report.checks[1].summary
    assert "unexpected ValueError: a bug" in report.checks[3].summary
    assert marks(lived, lived.full).proven() is None
    report = validate(lived, lived.full, at_end=(rows_are(99), *at_end))
    assert report.check.verdict is FAIL and "orders_are_there" in report.check.summary


def test_facts_that_the_wal_does_not_reach_or_nobody_can_read_prove_nothing(lived: Lived) -> None:
    told = lived.tell(lived.full, lived.facts(lsn=lived.lsn + (1 << 30)))
    report = validate(lived, lived.full, at_facts=(rows_are(lived.told),), at_end=(rows_are(lived.rows),))
    assert [check.verdict for check in report.checks] == [PASS, NOT_PROVEN, PASS]
    assert "cannot stand where" in report.checks[1].summary
    assert told.facts is not None
    (lived.base / "primary" / told.facts.key).write_bytes(b"other")
    report = validate(lived, lived.full, at_facts=(rows_are(lived.told),), at_end=(rows_are(lived.rows),))
    assert [check.verdict for check in report.checks] == [PASS, NOT_PROVEN, PASS]
    assert "cannot be read" in report.checks[1].summary


@pytest.mark.parametrize(("tables", "verdict"), [(("orders",), FAIL), ((), NOT_PROVEN)])
def test_a_copy_with_nothing_in_it_never_passes(lived: Lived, tables: tuple[str, ...], verdict: Verdict) -> None:
    lived.tell(lived.full, lived.facts("void", tables=tables))
    report = validate(lived, lived.full)
    assert report.checks[0].verdict is report.check.verdict is verdict
    said = "its source had tables (1) with 3 rows" if tables else "there was nothing to look at"
    assert said in report.checks[0].summary


class Down(Forwarding):
    """A store that stops to answer for packs."""

    def open(self, key: str, **part: Any) -> Any:
        if "/packs/" in key:
            raise StoreUnavailable("nobody there")
        return super().open(key, **part)


def test_what_keeps_us_from_looking_is_no_failure(lived: Lived) -> None:
    down: dict[str, ObjectStore] = {"primary": Down(LocalStore(lived.base / "primary", "primary"))}
    for site, why in ((lived.site(stores=down), "nobody there"), (lived.site(key=False), "identity")):
        report = validate(lived, lived.full, site=site)
        assert report.check.verdict is NOT_PROVEN and why in report.check.summary, report.check
    assert marks(lived, lived.full).validated() is None
    assert [kept.validation.verdict for kept in read_validations(lived.repository().store, "shop")] == [NOT_PROVEN] * 2
    assert first_choice(lived, use_incrementals="always")[0] == lived.incremental
    with pytest.raises(BackupNotFound):
        validate(lived, "20200101T000000Z-full")


def test_nothing_stays_of_one_that_is_interrupted(lived: Lived) -> None:
    def interrupted(copy: RestoredCopy) -> CheckResult:
        os.kill(os.getpid(), signal.SIGINT)
        return passed("never", "")

    # Whoever runs the tests in the background may have had the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            validate(lived, lived.full, at_end=(interrupted,))
    finally:
        signal.signal(signal.SIGINT, before)
    assert nothing_is_left(lived)
    assert not read_validations(lived.repository().store, "shop")
    assert not marks(lived, lived.full).proofs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as somebody else")
def test_a_scratch_folder_that_the_server_cannot_enter_is_refused(lived: Lived, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    site = lived.site(validation={"scratch_dir": str(closed)})
    with pytest.raises(RestoreError, match=f"cannot enter {closed}") as refused:
        validate(lived, lived.full, site=site)
    assert "scratch_dir" in str(refused.value.hint)
    closed.chmod(0o711)
    assert validate(lived, lived.full, site=site).check.verdict is PASS


# --- as a person sees it ---


def dr(lived: Lived, *argv: str, code: int = 0) -> str:
    (lived.base / "plan.yaml").write_text(yaml.dump(lived.plan()))
    env = {**os.environ, "DR_PLAN": str(lived.base / "plan.yaml")}
    done = forked.dr(*argv, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands(lived: Lived) -> None:
    said = dr(lived, "validate", "shop", "--label", lived.full, "--tier", "secondary")
    assert "PASS        data_was_seen" in said
    assert re.search(r"fetch +\d+\.\d s +\d+ MB/s", said)
    assert re.search(r"recovery took +\d+\.\d s, the measured RTO", said)
    lived.packs(lived.incremental)[0].unlink()
    said = dr(lived, "validate", "shop", "--json", code=41)
    told, _ = json.JSONDecoder().raw_decode(said)
    assert (told["check"]["verdict"], told["validation"]["verdict"]) == ("fail", "fail")
    listed = dr(lived, "list", "shop")
    assert re.search(rf"{lived.incremental} +D", listed)
    assert re.search(rf"{lived.incremental} +FAILED +[-0-9]+ [0-9:]+ +primary", listed)
    assert re.search(rf"{lived.full} +(not )?proven +[-0-9]+ [0-9:]+ +secondary", listed)
