"""The trust gate: when a chain is not continued, and which incrementals are provisional."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.server import ServerFacts
from dr_pipelines.postgres.trust import parent_of, reason_for_base, reason_for_doubt, reason_for_full
from tests.support.archives import manifest

_PARENT = manifest(postgres_version="18.7", postgres_version_num=180007)
_FACTS = ServerFacts(
    system_id="1", timeline=Timeline(1), version="18.7", version_num=180007, segment_size=1 << 20, block_size=8192,
    data_checksums=True, wal_level="replica", summarize_wal=True, in_recovery=False, max_wal_senders=10,
)  # fmt: skip


def test_a_chain_goes_on_where_nothing_happened() -> None:
    assert reason_for_full(_PARENT, _FACTS) is None


def test_without_a_backup_there_is_nothing_to_build_on() -> None:
    assert reason_for_full(None, _FACTS) == "there is no backup to build on"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system_id": "2"}, "the server is another one: system 2, the newest backup is of 1"),
        ({"timeline": Timeline(2)}, "the server is on timeline 2, the newest backup on 1"),
        ({"version": "18.8", "version_num": 180008}, "the server runs 18.8, the newest backup was taken on 18.7"),
        ({"data_checksums": False}, "data checksums were switched on or off"),
        ({"summarize_wal": False}, "summarize_wal is off"),
    ],
)
def test_what_ends_a_chain(change: dict[str, object], said: str) -> None:
    reason = reason_for_full(_PARENT, replace(_FACTS, **change))  # type: ignore[arg-type]
    assert reason is not None and said in reason


def test_a_chain_is_continued_with_the_servers_own_newest_backup() -> None:
    own, other = manifest(system_id="1"), manifest(system_id="2")
    assert parent_of([own, other], _FACTS) is own
    assert parent_of([other], _FACTS) is other
    assert parent_of([], _FACTS) is None


def test_wal_follows_a_full_over_versions_but_not_to_another_timeline_or_system() -> None:
    assert reason_for_base(_PARENT, replace(_FACTS, version_num=180008)) is None
    assert "timeline 2" in (reason_for_base(_PARENT, replace(_FACTS, timeline=Timeline(2))) or "")
    assert "another one" in (reason_for_base(_PARENT, replace(_FACTS, system_id="2")) or "")


@pytest.mark.parametrize(
    ("version_num", "doubtful"),
    [(170000, True), (170012, True), (170013, False), (180004, True), (180006, True), (180007, False), (190000, False)],
)
def test_minors_with_known_defects_give_provisional_incrementals(version_num: int, doubtful: bool) -> None:
    facts = replace(_FACTS, version=f"{version_num // 10_000}.{version_num % 10_000}", version_num=version_num)
    reason = reason_for_doubt(facts)
    assert (reason is not None) == doubtful
    if reason is not None:
        assert facts.version in reason
        assert {17: "17.13", 18: "18.7"}[facts.major] in reason
