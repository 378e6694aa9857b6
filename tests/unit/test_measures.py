"""On what terms a restored copy is judged."""

from __future__ import annotations

from datetime import timedelta

from dr_pipelines.repository.source_facts import TableFacts
from dr_pipelines.validation.measures import Terms
from dr_pipelines.validation.suites import Severity

HOUR = timedelta(hours=1)


def test_data_classes_name_tables_by_pattern_too() -> None:
    terms = Terms(0.1, 1000, {"sales.*": HOUR, "sales.orders": 0 * HOUR})
    orders, archive, other = (TableFacts(schema_name=s, name=n) for s, n in
                              (("sales", "orders"), ("sales", "archive"), ("public", "log")))  # fmt: skip
    assert [terms.promise_of(table) for table in (orders, archive, other)] == [0 * HOUR, HOUR, None]
    assert [terms.severity(table) for table in (archive, other)] == [Severity.CRITICAL, Severity.WARNING]
