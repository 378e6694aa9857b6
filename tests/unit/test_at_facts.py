"""What a copy's server says, and whether it is said of the data."""

from __future__ import annotations

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.errors import ServerError, ServerUnavailable
from dr_pipelines.validation.at_facts import Difference, judged, unreadable


@pytest.mark.parametrize(
    ("sqlstate", "said", "verdict"),
    [
        ("XX001", "invalid page in block 7 of relation base/5/16384", Verdict.FAIL),
        ("58P01", 'could not open file "base/5/16384": No such file or directory', Verdict.FAIL),
        ("58P01", 'could not access file "$libdir/postgis-3": No such file or directory', Verdict.NOT_PROVEN),
        ("53100", "could not write to file: No space left on device", Verdict.NOT_PROVEN),
        ("53200", "out of memory", Verdict.NOT_PROVEN),
        ("57014", "canceling statement due to user request", Verdict.NOT_PROVEN),
    ],
)
def test_what_the_machine_of_a_copy_lacks_is_no_fault_of_the_copy(sqlstate: str, said: str, verdict: Verdict) -> None:
    error = ServerError(said)
    error.sqlstate = sqlstate
    result = judged("source_is_matched", [unreadable("table public.orders", error)], {}, {})
    assert result is not None and result.verdict is verdict and said in result.summary


def test_a_server_that_went_away_proves_nothing_and_hides_no_difference() -> None:
    gone = unreadable("shop", ServerUnavailable("the server closed the connection"))
    alone = judged("source_is_matched", [gone], {}, {})
    assert alone is not None and alone.verdict is Verdict.NOT_PROVEN
    both = judged("source_is_matched", [gone, Difference("table public.orders is not there")], {}, {})
    assert both is not None and both.verdict is Verdict.FAIL
