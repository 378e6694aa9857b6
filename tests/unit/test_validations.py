"""Evidence of validations comes back as it was put, in order, and a flipped bit in it is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dr_pipelines.checks import Verdict, passed
from dr_pipelines.errors import RepositoryError
from dr_pipelines.lsn import Lsn
from dr_pipelines.repository.validations import SeenCheck, Validation, put_validation, read_validations
from dr_pipelines.storage.base import Body, read_all
from dr_pipelines.storage.memory import MemoryStore

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SEEN = Validation(
    server="shop",
    label="20260102T020000Z-full",
    chain=("20260102T020000Z-full",),
    tier="primary",
    at=AT,
    run="here",
    verdict=Verdict.PASS,
    summary="restored and validated",
    phases={"fetch": 2.0, "replay": 1.5, "validate": 4.0, "recall": 9.0},
    bytes=100,
    wal_bytes=10,
    reached=Lsn(1 << 24),
    checks=(SeenCheck.of(passed("rows_are_there", "3 tables", tables=3)),),
)


def test_there_and_back_in_order() -> None:
    store = MemoryStore()
    later = SEEN.model_copy(update={"at": AT + timedelta(hours=1)})
    for one in (later, SEEN, SEEN.model_copy(update={"server": "other"})):
        put_validation(store, one)
    assert [kept.validation for kept in read_validations(store, "shop")] == [SEEN, later]
    assert [kept.validation for kept in read_validations(store, "shop", AT + timedelta(minutes=1))] == [later]
    assert SEEN.recovery_seconds == 3.5


def test_what_was_changed_is_not_believed() -> None:
    store = MemoryStore()
    key = put_validation(store, SEEN)
    store.put(key, Body.of(read_all(store, key).replace(b'"fetch": 2.0', b'"fetch": 1.0')), if_absent=False)
    with pytest.raises(RepositoryError, match="no readable validation"):
        read_validations(store, "shop")
