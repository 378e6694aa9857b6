"""What a check says, and several together."""

from __future__ import annotations

from dr_pipelines.checks import failed, not_proven, passed, together
from dr_pipelines.metadata import check_result

SKIPPED = passed("it_holds", "there is nothing to hold", applies=False)


def test_what_did_not_apply_is_shown_as_skipped_and_alarms_nobody() -> None:
    assert SKIPPED.skipped and SKIPPED.passed
    assert not passed("it_holds", "it was seen").skipped
    assert not failed("it_holds", "it does not", applies=False).skipped
    shown = check_result(SKIPPED)
    assert (shown.passed, shown.metadata["verdict"].value) == (True, "skipped")
    assert "verdict" not in check_result(passed("it_holds", "it was seen")).metadata


def test_together_only_what_was_seen_is_a_pass_that_was_seen() -> None:
    seen = passed("it_holds", "it was seen", objects=3)
    assert together("it_holds", [SKIPPED, seen]).details == {"objects": 3}
    assert together("it_holds", [SKIPPED, SKIPPED]).skipped
    unseen = not_proven("it_holds", "it was not seen")
    assert together("it_holds", [SKIPPED, seen, unseen]).verdict is unseen.verdict
    assert not together("it_holds", []).passed
