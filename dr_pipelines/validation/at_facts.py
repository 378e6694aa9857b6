"""A copy that stands where its source told its facts: whether it does, and what a difference there proves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven
from dr_pipelines.errors import DrError, ServerError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.session import ReadSession
from dr_pipelines.postgres.sight import Overlap, Sight, overlap
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts
from dr_pipelines.validation.subject import RestoredCopy

_STOPPED_BEFORE = re.compile(r'before WAL location \(LSN\) "([0-9A-F]+/[0-9A-F]+)"')
_SHOWN, _KEPT = 3, 200


@dataclass(frozen=True)
class Difference:
    """Between what was told and what is there. `doubt`: why it proves nothing (None: it proves that the copy is
    wrong)."""

    what: str
    doubt: str | None = None


def unreadable(what: str, error: DrError) -> Difference:
    """Of a copy. What its host lacks proves nothing."""
    is_of_the_copy = isinstance(error, ServerError) and not error.tells_of_the_host
    return Difference(f"{what} cannot be read: {error.message}", None if is_of_the_copy else "that is of this machine")


def facts_of(copy: RestoredCopy) -> SourceFacts | str:
    """The facts that the copy can be held against where it stands now; or why there are none."""
    facts, at = copy.facts, copy.scratch.at
    if facts is None:
        return f"{copy.backup.label} has no facts of its source"
    if facts.lsn is None:
        return f"no database of the source could be looked at: {in_words(facts.trouble)}"
    if at is None:
        return f"the copy was not replayed to {facts.lsn}, where its source told its facts"
    stopped = _STOPPED_BEFORE.search(at.stopped or "")
    ends_there = stopped is None and at.reached == facts.lsn  # of all WAL: nothing came after
    if not ends_there and (stopped is None or not at.reached <= facts.lsn <= Lsn.parse(stopped[1])):
        return f"the copy stands at {at.reached}, and its source told its facts at {facts.lsn}"
    return facts


def doubt_about(session: ReadSession, told: DatabaseFacts, facts: SourceFacts) -> str | None:
    """Why a difference of this database proves nothing; None where it does."""
    if ended := _ended_meanwhile(session, told, facts):
        return f"{ended} of the source ended while it was looked at"
    return None if told.stable else "the source's catalogue was changed while it was looked at"


def _ended_meanwhile(session: ReadSession, told: DatabaseFacts, facts: SourceFacts) -> Overlap:
    """Transactions of a standby cannot be known; there a position that is not exact is trouble. Nor can they in a copy
    that was promoted: what ran has ended."""
    if facts.in_recovery:
        return Overlap()
    ((in_recovery,),) = session.ask("SELECT pg_is_in_recovery()")
    return overlap(session, Sight.parse(told.snapshot)) if in_recovery else Overlap(unknown=True)


def trouble_with_data(facts: SourceFacts) -> Mapping[str, str]:
    """What could not be told of rows and sequences."""
    return {
        about: reason
        for about, reason in facts.trouble.items()
        if about not in ("cluster", "record") and not about.endswith(" catalogue")
    }


def judged(
    name: str, differences: Sequence[Difference], trouble: Mapping[str, str], details: Mapping[str, Any]
) -> CheckResult | None:
    """None: nothing speaks against a pass."""
    proven = [found.what for found in differences if found.doubt is None]
    doubtful = [found for found in differences if found.doubt is not None]
    if differences:
        told = [{"what": found.what, "doubt": found.doubt} for found in differences]
        details = {**details, "differences": told[:_KEPT]}
    if proven:
        return failed(name, f"the copy differs from its source: {shown(proven)}", **details)
    if doubtful:
        why = dict.fromkeys(str(found.doubt) for found in doubtful)
        return not_proven(name, f"{shown([found.what for found in doubtful])}, but {'; '.join(why)}", **details)
    if trouble:
        return not_proven(name, f"not all of the source could be looked at: {in_words(trouble)}", **details)
    return None


def shown(names: Sequence[str]) -> str:
    """The first few."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


def in_words(trouble: Mapping[str, str]) -> str:
    return shown([f"{about}: {reason}" for about, reason in trouble.items()]) or "it has none"
