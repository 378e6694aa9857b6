"""Which checks a restored copy goes through, and where it stands for each."""

from __future__ import annotations

from dr_pipelines.validation.subject import Check

AT_FACTS: tuple[Check, ...] = ()
"""While the copy stands, read-only, exactly where its source was when it told its facts; without facts these are not
proven."""

AT_END: tuple[Check, ...] = ()
"""When all WAL was replayed and the copy was promoted: it can be written, and reaches nothing."""
