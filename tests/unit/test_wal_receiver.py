"""What the receiver's last words mean."""

from __future__ import annotations

import pytest

from dr_pipelines.postgres.wal_receiver import Ending, ending

REMOVED = (
    'pg_receivewal: error: could not send replication command "START_REPLICATION": ERROR:  requested WAL segment '
    "000000010000000000000004 has already been removed"
)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("", Ending("the receiver ended with exit code 1")),
        ("first\nlast\n\n", Ending("last")),
        (f"{REMOVED}\npg_receivewal: error: disconnected\n", Ending(REMOVED, wal_removed=True)),
        (
            "x: error: requested starting point 0/900000 on timeline 1 is not in this server's history\nDETAIL: …",
            Ending(
                "x: error: requested starting point 0/900000 on timeline 1 is not in this server's history",
                wal_removed=True,
            ),
        ),
    ],
    ids=["silence", "the last line", "removed", "another history"],
)
def test_why_a_receiver_ended(said: str, wanted: Ending) -> None:
    assert ending(said, 1) == wanted
