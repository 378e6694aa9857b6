"""What was damaged, who noticed, and the table of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table


@dataclass(frozen=True)
class Trial:
    """One damage. `seen_by`: the checks that did not pass any more; `restore`: what became of a restore from the
    damaged tier alone (None: none was tried); `what` says where, for whoever looks for a hole."""

    kind: str
    what: str
    seen_by: tuple[str, ...]
    restore: str | None = None
    unseen_because: str | None = None

    @property
    def detected(self) -> bool:
        return bool(self.seen_by)


REFUSED, RIGHT, WRONG = "refused", "right all the same", "WRONG DATA"
NOT_OURS = "out of scope"


@dataclass
class Ledger:
    """All trials of a run, and what was said about good ones: `alarms`."""

    title: str
    trials: list[Trial] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    good: int = 0
    """How often undamaged ones were looked at and passed."""

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)

    @property
    def counted(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.unseen_because is None]

    @property
    def holes(self) -> list[Trial]:
        """Of what should be seen: what was not, and every restore that gave wrong data and no error."""
        return [trial for trial in self.counted if not trial.detected or trial.restore == WRONG]

    @property
    def passed(self) -> bool:
        return bool(self.counted) and self.good > 0 and not self.holes and not self.alarms

    def table(self) -> Table:
        shown = Table("damage", "tried", "detected", "share", "by", "restore", title=self.title)
        for kind, trials in _by_kind(self.trials):
            detected = sum(trial.detected for trial in trials)
            by = Counter(name for trial in trials for name in trial.seen_by)
            restores = Counter(trial.restore for trial in trials if trial.restore)
            why = next((trial.unseen_because for trial in trials if trial.unseen_because), None)
            share = f"{NOT_OURS}: {why}" if why else f"{detected / len(trials):.0%}"
            shown.add_row(kind, str(len(trials)), str(detected), share, _counts(by, len(trials)), _counts(restores, 0))
        seen = sum(trial.detected for trial in self.counted)
        total = len(self.counted)
        shown.add_section()
        shown.add_row("all", str(total), str(seen), f"{seen / total:.1%}" if total else "-", "", "")
        return shown


def _by_kind(trials: Iterable[Trial]) -> list[tuple[str, list[Trial]]]:
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.kind, []).append(trial)
    return [*found.items()]


def _counts(counter: Counter[str], of: int) -> str:
    """`scrub, verify 2`: without a number where all did."""
    return ", ".join(name if count == of else f"{name} {count}" for name, count in counter.most_common())
