"""Is the copy the same server? Its catalogue against that of its source: roles and rights, row security, extensions,
indexes, functions, whatever there is besides rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from dr_pipelines.checks import CheckResult, not_proven, passed
from dr_pipelines.errors import DrError
from dr_pipelines.postgres.catalogue import QUESTIONS, Catalogue, Objects, read_cluster, read_database
from dr_pipelines.postgres.session import read_session
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts
from dr_pipelines.validation.at_facts import Difference, doubt_about, facts_of, judged, unreadable
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.wording import are, counted

CATALOGUE_IS_MATCHED = "catalogue_is_matched"
NOT_RESTORED = frozenset({"replication slot"})
"""No backup holds them: they are told so that a person can make them anew."""
COLLATION = "collation version"
"""Of the operating system: what is compared is the host of the source with that of the copy."""
_WORDING = "the source was asked by another release of dr, which may word the same definition otherwise"
_HOST = "that is this host's and not the backup's"


def catalogue_is_matched(copy: RestoredCopy) -> CheckResult:
    """Of each kind the same objects with the same definitions. Differences are named: missing, extra, changed."""
    facts = facts_of(copy)
    if isinstance(facts, str):
        return not_proven(CATALOGUE_IS_MATCHED, facts)
    differences = [found for told in facts.databases for found in _compared(copy, told, facts)]
    counts = _counts(facts)
    details = {"lsn": str(facts.lsn), "databases": len(facts.databases), "objects": counts}
    if (result := judged(CATALOGUE_IS_MATCHED, differences, _trouble(facts), details)) is not None:
        return result
    total = sum(counts.values())
    if total == 0:
        return not_proven(CATALOGUE_IS_MATCHED, "the source told of no object: nothing could be compared", **details)
    return passed(
        CATALOGUE_IS_MATCHED,
        f"{counted(total, 'object')} of {counted(len(counts), 'kind')} in {counted(len(facts.databases), 'database')} "
        f"{are(total)} as at {facts.lsn}",
        **details,
    )


def _trouble(facts: SourceFacts) -> Mapping[str, str]:
    """What concerns the catalogue."""
    return {
        about: reason
        for about, reason in facts.trouble.items()
        if about not in ("checksums", "record") and not about.endswith(" data")
    }


def _counts(facts: SourceFacts) -> dict[str, int]:
    counts: dict[str, int] = {}
    for objects in (facts.cluster, *(told.objects for told in facts.databases)):
        for kind, found in objects.items():
            if kind not in NOT_RESTORED:
                counts[kind] = counts.get(kind, 0) + len(found)
    return counts


def _compared(copy: RestoredCopy, told: DatabaseFacts, facts: SourceFacts) -> Iterator[Difference]:
    """The cluster with the database that told of it."""
    try:
        with ExitStack() as stack:
            session = stack.enter_context(read_session(copy.server(told.name)))
            session.begin()
            doubt = _WORDING if facts.questions != QUESTIONS else doubt_about(session, told, facts)
            if told is facts.databases[0]:
                yield from _differences(facts.cluster, read_cluster(session), "", doubt)
            yield from _differences(told.objects, read_database(session), f"{told.name}: ", doubt)
    except DrError as error:
        yield unreadable(told.name, error)


def _differences(told: Objects, here: Catalogue, where: str, doubt: str | None) -> Iterator[Difference]:
    for kind, objects in told.items():
        if kind in NOT_RESTORED:
            continue
        if kind in here.trouble:
            yield Difference(f"{where}{kind} cannot be read: {here.trouble[kind]}", "that is not the copy's fault")
        elif kind == COLLATION:
            yield from (Difference(where + what, _HOST) for what in _collations(objects, here.objects.get(kind, {})))
        else:
            found = _of_kind(kind, objects, here.objects.get(kind, {}))
            yield from (Difference(where + what, doubt) for what in found)


def _of_kind(kind: str, told: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    for name, definition in told.items():
        if name not in here:
            yield f"{kind} {name} is missing"
        elif here[name] != definition:
            yield f"{kind} {name} is changed: {here[name] or 'nothing'}, at the source {definition or 'nothing'}"
    yield from (f"{kind} {name} is extra" for name in here if name not in told)


def _collations(told: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """Another version sorts otherwise, and indexes on text are wrong there until they are made anew."""
    for name, version in told.items():
        if here.get(name, "") != version:
            refresh = f"ALTER DATABASE {name[9:]} REFRESH COLLATION VERSION"
            if not name.startswith("database "):
                refresh = f"ALTER COLLATION {name[10:]} REFRESH VERSION"
            yield (
                f"{name} is of version {here.get(name) or 'none'} on this host and was {version or 'none'} on the "
                f"source's: after a restore here REINDEX what is indexed by it, then {refresh}"
            )
