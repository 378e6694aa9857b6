"""Which checks a restored copy goes through, and where it stands for each."""

from __future__ import annotations

from dr_pipelines.validation.consistency import source_is_matched
from dr_pipelines.validation.fidelity import catalogue_is_matched
from dr_pipelines.validation.subject import Check

AT_FACTS: tuple[Check, ...] = (source_is_matched, catalogue_is_matched)
"""While the copy stands, read-only, exactly where its source was when it told its facts: at `facts.lsn`, which is one
for all databases, replayed to `RecoveryTarget("lsn", facts.lsn, inclusive=False)`. Without facts, or anywhere else,
these are not proven."""

AT_END: tuple[Check, ...] = ()
"""When all WAL was replayed and the copy was promoted: it can be written, and reaches nothing."""
