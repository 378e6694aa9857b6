"""Do incrementals give what the WAL gives? Full and incrementals, merged, against the same full and WAL, both at the
position where the newest incremental is consistent: page by page.

Native incrementals have omitted blocks (release notes of 17.13 and 18.7), and nothing in a restore would tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.clock import Clock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import RecoveryFailed
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.page_compare import Comparison, Difference, compare
from dr_pipelines.postgres.relation_owners import Owners, find_owners, is_ahead_by_its_log
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_target import require_room
from dr_pipelines.postgres.scratch import Replayed, ScratchServer, scratch
from dr_pipelines.progress import Progress
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.wording import counted

PROMISE = "incrementals_are_equivalent"
_TOLD = 20


@dataclass(frozen=True)
class Equivalence:
    """`chain` oldest first, read from `tier`. `phases` in seconds."""

    check: CheckResult
    chain: tuple[BackupManifest, ...]
    tier: str
    phases: dict[str, float]


def incrementals_are_equivalent(
    request: RestoreRequest,
    newest: BackupManifest,
    chain: Sequence[BackupManifest],
    repositories: Sequence[Repository],
    *,
    clock: Clock,
    runner: Runner,
    progress: Progress,
) -> Equivalence:
    """Of the chain (oldest first) up to `newest`. Both copies lie beside `request.target_dir` while this lasts, and
    need room for twice the full. Raises `RestoreError` where they cannot be made, and what the stores raise."""
    require_room({request.target_dir: 2 * chain[0].archive.size + sum(link.archive.size for link in chain[1:])})
    at = RecoveryTarget("lsn", newest.stop_lsn, inclusive=False)

    def copy(name: str, label: str, stack: ExitStack) -> ScratchServer:
        target = request.target_dir.with_name(f"{newest.label}-{name}")
        made = replace(request, label=label, target_dir=target)
        return stack.enter_context(scratch(made, repositories, clock=clock, runner=runner, progress=progress))

    phases: dict[str, float] = {}
    with ExitStack() as stack:
        merged = copy("merged", newest.label, stack)
        end = _settle(merged, at)
        replayed = copy("replayed", merged.chain[0].label, stack)
        other = replayed.settle_at(at)
        for side, server in (("merged", merged), ("replayed", replayed)):
            phases |= {f"{phase} {side}": seconds for phase, seconds in server.phases.items()}
        if isinstance(end, RecoveryFailed):
            said = f"{_way(merged.chain)} cannot be replayed to {newest.stop_lsn}, and {_full(merged.chain)} can"
            return Equivalence(failed(PROMISE, said, server=end.message), merged.chain, merged.tier, phases)
        began = clock.monotonic()
        check = _compared(merged, replayed, end, other, progress)
        phases["compare"] = clock.monotonic() - began
        return Equivalence(check, merged.chain, merged.tier, phases)


def _settle(copy: ScratchServer, at: RecoveryTarget) -> Replayed | RecoveryFailed:
    """WAL that does not fit the pages that it meets stops a server: that is an answer."""
    try:
        return copy.settle_at(at)
    except RecoveryFailed as error:
        return error


def _compared(
    merged: ScratchServer, replayed: ScratchServer, left: Replayed, right: Replayed, progress: Progress
) -> CheckResult:
    if left.reached != right.reached:
        return not_proven(PROMISE, f"one copy ended at {left.reached}, the other at {right.reached}")
    progress.phase("compare", _size(replayed.data_dir))
    seen = compare(merged.data_dir, replayed.data_dir, block_size=merged.backup.block_size, advance=progress.advance)
    found, ignored = _judged(replayed, seen)
    return _answer(merged.chain, left.reached, seen, found, ignored)


def _size(data_dir: Path) -> int:
    return sum(path.stat().st_size for path in data_dir.rglob("*") if path.is_file())


def _judged(replayed: ScratchServer, seen: Comparison) -> tuple[list[str], int]:
    """What differs, in words; and how many relations do that belong to no committed transaction."""
    files = {difference.file for difference in seen.differences} | {pair.file for pair in seen.sequences}
    if not files:
        return [], 0
    replayed.start()
    try:
        owners = find_owners(replayed.server, files)
    finally:
        replayed.stop()
    counting = [difference for difference in seen.differences if _counts(difference, owners)]
    ignored = {difference.file for difference in seen.differences} - {difference.file for difference in counting}
    return [*_named(counting, owners), *_uneven_sequences(seen, owners)], len(ignored)


def _counts(difference: Difference, owners: Owners) -> bool:
    """What is being built when the backup ends is logged when it is finished, and nobody can read it before."""
    owner = owners.known.get(difference.file)
    return owners.is_committed(difference.file) and (owner is None or owner.is_ready)


def _named(differences: Sequence[Difference], owners: Owners) -> Iterator[str]:
    what = {"vm": "the visibility map of ", "init": "the init fork of "}
    for difference in differences:
        blocks = ", ".join(str(block) for block in difference.blocks)
        untold = difference.count - len(difference.blocks)
        more = f" and {untold} more" if untold else ""
        word = "block" if difference.count == 1 else "blocks"
        yield f"{what.get(difference.fork, '')}{owners.name(difference.file)}: {word} {blocks}{more}"


def _uneven_sequences(seen: Comparison, owners: Owners) -> Iterator[str]:
    for pair in seen.sequences:
        owner = owners.known.get(pair.file)
        if owners.is_committed(pair.file) and not is_ahead_by_its_log(pair, owner.counting if owner else None):
            yield f"{owners.name(pair.file)}: block 0"


def _answer(
    chain: Sequence[BackupManifest], at: Lsn, seen: Comparison, found: Sequence[str], ignored: int
) -> CheckResult:
    details = {
        "lsn": str(at),
        "chain": [backup.label for backup in chain],
        "relations": seen.relations,
        "pages": seen.pages,
        "masked": seen.masked,
        "files": seen.files,
        "unlogged": seen.unlogged,
        "uncommitted": ignored,
    }
    differ = [*found, *seen.other]
    if differ:
        more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
        said = f"{_way(chain)} is not what {_full(chain)} is at {at}: {'; '.join(differ[:3])}{more}"
        return failed(PROMISE, said, differences=differ[:_TOLD], **details)
    looked = f"{counted(seen.pages, 'page')} of {counted(seen.relations, 'relation')}"
    if not seen.pages or not seen.files:
        return not_proven(PROMISE, f"nothing was there to compare: {looked}", **details)
    return passed(PROMISE, f"{_way(chain)} is what {_full(chain)} is at {at}: {looked} are equal", **details)


def _way(chain: Sequence[BackupManifest]) -> str:
    count = len(chain) - 1
    return f"{chain[-1].label}, merged from {count} incremental{'' if count == 1 else 's'} and their full,"


def _full(chain: Sequence[BackupManifest]) -> str:
    return f"{chain[0].label} with WAL"
