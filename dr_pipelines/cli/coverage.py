"""`dr coverage`: what is on a server and not in the plan."""

from __future__ import annotations

from dr_pipelines import operations
from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.cli.context import Json, ServerName, settings
from dr_pipelines.cli.output import out, print_checks, print_json
from dr_pipelines.errors import CheckFailed, NotProven

_TITLES = {
    "new": "not in the newest backup",
    "tables_of_no_data_class": "in no data class",
    "named_and_nowhere": "named in a data class and in no database",
    "not_looked_at": "not looked at",
}


def coverage(server: ServerName, as_json: Json = False) -> None:
    """Ask a server what there is, and name what the plan does not cover.

    Databases, schemas, extensions and tablespaces that are newer than the newest backup; tables that no data class
    names, where the server's data classes name any. Exits 41 when there is something, 40 when it cannot be told.
    """
    check = operations.find_uncovered(settings.site(), server)
    print_json(check) if as_json else _show(check)
    if check.verdict is not Verdict.PASS:
        ending = CheckFailed if check.verdict is Verdict.FAIL else NotProven
        raise ending(check.summary, hint=check.details.get("hint"))


def _show(check: CheckResult) -> None:
    for part, title in _TITLES.items():
        for name in check.details.get(part, ()):
            out.print(f"{title}: {name}", soft_wrap=True)
    print_checks([check])
