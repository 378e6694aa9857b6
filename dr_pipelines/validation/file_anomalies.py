"""Is what changed in a file set usual? Pure: how a snapshot differs from those before, and the plan's shares, in; an
answer out. What encrypts or removes other people's files changes many at once, and mostly renames them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.plan.file_sets import AnomalyPlan
from dr_pipelines.wording import counted

if TYPE_CHECKING:
    # For its name only: what reads an answer needs no tables.
    from dr_pipelines.files.beside import Differences

CHANGES_ARE_USUAL = "changes_are_usual"


@dataclass(frozen=True)
class Share:
    """`number` of `of` files did what `what` says; from `allowed` percent on that is unusual."""

    what: str
    number: int
    of: int
    allowed: int

    @property
    def percent(self) -> float:
        return 100 * self.number / self.of if self.of else 0.0

    def weight(self, at_least: int) -> float:
        """From 1 on it is unusual."""
        return self.percent / self.allowed if self.of >= at_least else 0.0

    def is_unusual(self, at_least: int) -> bool:
        return self.weight(at_least) >= 1

    def __str__(self) -> str:
        return f"{self.number:,} of {counted(self.of, 'file')} ({self.percent:.0f} %) {self.what}"


def shares(found: Differences, plan: AnomalyPlan) -> Iterator[Share]:
    yield Share("changed", found.changed, found.before, plan.changed)
    yield Share("vanished", found.vanished, found.before, plan.vanished)
    yield Share(f"now end in {found.ending or 'one new ending'}", found.renamed, found.before, plan.renamed)
    yield Share("no longer compress", found.incompressible, found.compressible, plan.incompressible)


def changes_are_usual(label: str, beside: Sequence[Differences], plan: AnomalyPlan) -> CheckResult:
    """`beside`: of each snapshot that it was compared with. That by which it is the most unusual is told."""
    if not beside:
        said = f"{label} is the first that there is to compare with"
        return passed(CHANGES_ARE_USUAL, said, label=label, applies=False)
    found = max(beside, key=lambda one: max(share.weight(plan.at_least) for share in shares(one, plan)))
    asked = [*shares(found, plan)]
    unusual = [share for share in asked if share.is_unusual(plan.at_least)]
    details = {
        "label": label,
        "beside": found.beside,
        "moved": found.moved,
        "shares": [
            {"files that": share.what, "number": share.number, "of": share.of, "percent": round(share.percent, 1),
             "unusual from": f"{share.allowed} %"}
            for share in asked
        ],
    }  # fmt: skip
    if unusual:
        return failed(
            CHANGES_ARE_USUAL,
            f"{label} is unusual beside {found.beside}: {', '.join(str(share) for share in unusual)}",
            hint="nothing older is let go until `dr files accept` says that it is well.",
            **details,
        )
    few = " (too few files to say)" if found.before < plan.at_least else ""
    said = f"{found.changed:,} of {counted(found.before, 'file')} changed and {found.vanished:,} vanished{few}"
    return passed(CHANGES_ARE_USUAL, f"{label} is usual beside {found.beside}: {said}", **details)
