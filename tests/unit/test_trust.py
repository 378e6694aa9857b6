"""The trust gate: when a chain is not continued, and which incrementals are provisional."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.server import ServerFacts
from dr_pipelines.postgres.trust import (
    chain_to_replace,
    parent_of,
    reason_for_base,
    reason_for_doubt,
    reason_for_full,
    reason_of_proof,
)
from dr_pipelines.repository.catalog import Catalog, known_equivalence, unequal_in_chain, vouched_for
from dr_pipelines.repository.layout import BackupKind, ProofName
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from tests.support.archives import AT, manifest

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


FULL = manifest("20260101T000000Z-full", finished_at=AT)
FIRST = manifest("20260101T010000Z-incr", kind=BackupKind.INCREMENTAL, parent=FULL.label, finished_at=AT)
SECOND = manifest("20260101T020000Z-incr", kind=BackupKind.INCREMENTAL, parent=FIRST.label, finished_at=AT)
NEXT_FULL = manifest("20260102T000000Z-full", finished_at=AT + timedelta(days=1))


def _catalog(*backups: BackupManifest, **verdicts: tuple[str, ...]) -> Catalog:
    """Comparisons of the first and the second incremental, an hour after each other."""
    labels = {"first": FIRST.label, "second": SECOND.label}
    marks = {
        labels[name]: Marks(
            proofs=tuple(
                ProofName("equivalence", AT + number * timedelta(hours=1), said) for number, said in enumerate(those)
            )
        )
        for name, those in verdicts.items()
    }
    return Catalog(backups, marks=marks)


def test_a_chain_whose_incremental_is_wrong_is_not_continued_and_replaced() -> None:
    bad = _catalog(FULL, FIRST, SECOND, second=("fail",))
    assert [backup.label for backup in bad.usable] == [FULL.label, FIRST.label]
    for parent in (FULL, FIRST):
        assert SECOND.label in (reason_of_proof(parent, bad) or "")
    assert (chain_to_replace(bad) or ("",))[0] == FULL.label
    replaced = _catalog(FULL, FIRST, SECOND, NEXT_FULL, second=("fail",))
    assert reason_of_proof(NEXT_FULL, replaced) is None
    assert chain_to_replace(replaced) is None


def test_what_builds_on_a_wrong_incremental_is_as_wrong_as_it() -> None:
    bad = _catalog(FULL, FIRST, SECOND, first=("fail",))
    assert [backup.label for backup in bad.usable] == [FULL.label]
    assert (bad.trouble(SECOND) or "").startswith(f"{FIRST.label}, which it builds on, was found on")


@pytest.mark.parametrize(("said", "good"), [(("pass",), True), (("fail", "pass"), True), (("pass", "fail"), False)])
def test_the_newest_comparison_counts(said: tuple[str, ...], good: bool) -> None:
    catalog = _catalog(FULL, FIRST, first=said)
    assert (catalog.trouble(FIRST) is None) == good
    assert (reason_of_proof(FULL, catalog) is None) == good


def test_a_comparison_vouches_for_what_its_incremental_builds_on() -> None:
    assert vouched_for(_catalog(FULL, FIRST, SECOND, second=("pass",))) == {FULL.label, FIRST.label, SECOND.label}
    assert vouched_for(_catalog(FULL, FIRST, SECOND, first=("pass",))) == {FULL.label, FIRST.label}
    assert not vouched_for(_catalog(FULL, FIRST, SECOND, first=("pass", "fail"), second=("pass",)))


def test_a_comparison_on_one_tier_is_true_on_the_others() -> None:
    here, there = _catalog(FULL, FIRST, SECOND), _catalog(FULL, FIRST, first=("fail",))
    known = known_equivalence([here, there])
    assert "which it builds on" in (unequal_in_chain(SECOND, here, known) or "")
    assert unequal_in_chain(FULL, here, known) is None
