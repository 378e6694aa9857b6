"""The operator's own suites, over the restored copy: `<expectations>/<server>/<database>/<name>.json` or `.py`.

`<name>` is a table or view, `schema.table`; with a `<name>.sql` beside it, the suite is over the rows of that query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.server import Server
from dr_pipelines.validation.pages import keep_page
from dr_pipelines.validation.subject import Subject
from dr_pipelines.validation.suites import SuiteResult, judged, unmet, unproven

if TYPE_CHECKING:
    from dr_pipelines.validation.expectations import Database

SUITES, QUERY = (".json", ".py"), ".sql"


@dataclass(frozen=True)
class SuiteFile:
    """`database` is the folder that it lies in; `query` the file beside it, when there is one."""

    path: Path
    database: str
    query: Path | None

    @property
    def name(self) -> str:
        return f"{self.database}/{self.path.name}"


def suite_files(plan: ValidationPlan, server: str) -> list[SuiteFile]:
    """Of one server, in order; none where there is no such folder."""
    folder = plan.expectations / server
    return [
        suite_file(path, path.parent.name)
        for path in sorted(folder.glob("*/*"))
        if path.suffix in SUITES and path.is_file()
    ]


def suite_file(path: Path, database: str) -> SuiteFile:
    """With the query beside it, when there is one."""
    return SuiteFile(path, database, query if (query := path.with_suffix(QUERY)).is_file() else None)


def strays(plan: ValidationPlan, server: str) -> list[str]:
    """What lies in the server's folder and belongs to no suite: somebody thinks that it is looked at."""
    folder = plan.expectations / server
    used = {file.path for file in suite_files(plan, server)} | {
        file.query for file in suite_files(plan, server) if file.query is not None
    }
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in used and path.suffix in (*SUITES, QUERY) and "__pycache__" not in path.parts
    ]


def overlooked(plan: ValidationPlan, servers: Collection[str]) -> list[str]:
    """What belongs to no server of the plan, as in a folder whose name is mistyped, in sentences."""
    folder = plan.expectations
    if not folder.is_dir():
        return [f"there is no folder {folder}, which the plan names"] if "expectations" in plan.model_fields_set else []
    lying = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob("*")) if path.suffix in SUITES)
    return [
        f"{path} belongs to no server of the plan"
        for path, parts in lying
        if "__pycache__" not in parts and (len(parts) == 1 or parts[0] not in servers)
    ]


def own_expectations_are_met(copy: Subject) -> CheckResult:
    """Every suite that lies there. A table that does not exist is a failure, a suite that cannot be read is not proven.
    Python suites are programs, and run in this process. Raises `ServerError` and its kinds."""
    files = suite_files(copy.plan, copy.source)
    left = strays(copy.plan, copy.source)
    if not files and not left:
        return not_proven("own_expectations_are_met", f"there are no suites in {copy.plan.expectations / copy.source}")
    there = copy.databases()
    results = [
        *(result for database in dict.fromkeys(file.database for file in files)
          for result in _database(copy, database, [file for file in files if file.database == database], there)),
        *(unproven(path, "it is no suite, nor the query of one") for path in left),
    ]  # fmt: skip
    page = keep_page(copy, "expectations", results)
    return judged("own_expectations_are_met", results, document=page, folder=str(copy.plan.expectations / copy.source))


def results_of(server: Server, files: Sequence[SuiteFile], settings: Mapping[str, str]) -> Iterator[SuiteResult]:
    """Of suites over the server's database, asked with PostgreSQL's `settings`. Raises `ServerError` and its kinds."""
    # Imported here: it takes seconds.
    from dr_pipelines.validation.expectations import database

    relations = {
        str(found)
        for (found,) in server.ask(
            "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        )
    }
    with database(server.connection, settings=settings) as opened:
        for file in files:
            yield _run(opened, file, relations)


def _database(copy: Subject, name: str, files: list[SuiteFile], there: list[str]) -> Iterator[SuiteResult]:
    if name not in there:
        yield from (unmet(file.name, f"there is a database {name}", "there is none of this name") for file in files)
    else:
        yield from results_of(copy.server(name), files, {})


def _run(opened: Database, file: SuiteFile, relations: set[str]) -> SuiteResult:
    from dr_pipelines.validation.expectations import SuiteUnreadable, load_suite

    try:
        suite = load_suite(file.path, file.name)
        query = None if file.query is None else file.query.read_text()
    except SuiteUnreadable as error:
        return unproven(file.name, error.message)
    except (OSError, ValueError) as error:
        return unproven(file.name, f"its query cannot be read: {error}")
    if query is not None:
        return opened.over_query(suite, query.strip().rstrip(";"), values=False)
    schema, _, table = file.path.stem.partition(".")
    if f"{schema}.{table}" not in relations:
        return unmet(file.name, f"there is a table or view {file.path.stem}", "there is none of this name")
    return opened.over_table(suite, schema, table, values=False)
