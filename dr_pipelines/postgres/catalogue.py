"""What a database and its cluster are made of, as text: of each kind the identity of each object and its definition.

A source and its restored copy are asked the same questions. What differs by nature is not asked for: statistics,
whether a subscription is enabled (a restore disables it), where a tablespace lies. Nor are secrets: password hashes,
connection strings, options of servers and user mappings, values of settings that PostgreSQL does not know.
Source: PostgreSQL manual, "System Catalogs".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dr_pipelines.errors import DrError, ServerMisconfigured
from dr_pipelines.postgres.catalogue_queries import CLUSTER, DATABASE, OPTIONAL, SIGNATURE, Question
from dr_pipelines.postgres.session import ReadSession

Objects = Mapping[str, Mapping[str, str]]
QUESTIONS = hashlib.sha256(repr((DATABASE, CLUSTER)).encode()).hexdigest()[:16]
"""Another one, another wording: definitions that two of them give may differ for the same object."""


@dataclass(frozen=True)
class Catalogue:
    """`objects` by kind; of a kind that is in `trouble` (with the reason) or that the role may not see nothing is
    there, which is not the same as an empty one."""

    objects: Objects
    trouble: Mapping[str, str] = field(default_factory=dict)


def read_database(session: ReadSession) -> Catalogue:
    return _read(session, DATABASE)


def read_cluster(session: ReadSession) -> Catalogue:
    return _read(session, CLUSTER)


def signature(session: ReadSession) -> str:
    """Changes when something of the database's catalogue was changed: definitions are printed from what is committed
    now, whatever the snapshot, so they belong to it only where nothing changed in between."""
    return str(session.ask(SIGNATURE)[0][0])


def _read(session: ReadSession, questions: Mapping[str, Question]) -> Catalogue:
    objects: dict[str, dict[str, str]] = {}
    trouble: dict[str, str] = {}
    for kind, question in questions.items():
        if question.since > session.version_num:
            continue
        try:
            objects[kind] = dict(_answers(session, question))
        except ServerMisconfigured as error:
            if kind not in OPTIONAL:
                trouble[kind] = error.message
        except DrError as error:
            trouble[kind] = error.message
    return Catalogue(objects, trouble)


def _answers(session: ReadSession, question: Question) -> Iterator[tuple[str, str]]:
    """Long definitions as their beginning and their SHA-256."""
    rows = session.ask(
        f"""
        SELECT identity, CASE WHEN length(definition) > 300 THEN left(definition, 80) || '… sha256 '
               || encode(sha256(convert_to(definition, 'UTF8')), 'hex') ELSE definition END
        FROM ({question.sql}) AS found(identity, definition) ORDER BY identity COLLATE "C"
        """
    )
    for identity, definition in rows:
        yield str(identity), "" if definition is None else str(definition)
