"""The rules of the tree, read from its imports and calls: layers point down, and every outside thing has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("dr_pipelines", "assets", "schedules", "sensors")

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "clock", "commands", "endings", "checks", "disk", "lsn", "progress", "wording", "__init__"}),
    frozenset({"plan"}),
    frozenset({"storage"}),
    frozenset({"repository"}),
    frozenset({"postgres", "files"}),
    frozenset({"replication", "retention", "validation", "objectives", "reconcile"}),
    frozenset({"reports"}),
    frozenset({"site"}),
    frozenset({"operations"}),
    frozenset({"cli", "embedded", "definitions", "resources", "store_resources", "jobs", "metadata", "report_metadata",
               "file_metadata", "backed_up", "assets", "schedules", "sensors"}),
)  # fmt: skip
RIMS = frozenset({"cli", "embedded", "assets", "schedules", "sensors", "definitions"})
"""Ways in. Nothing imports them but `definitions`, which puts Dagster's together; what two of them need lies below."""

DOORS: dict[str, tuple[str, ...]] = {
    "subprocess": ("dr_pipelines/commands.py",),
    "boto3": ("dr_pipelines/storage/s3.py",),
    "botocore": tuple(f"dr_pipelines/storage/{name}.py" for name in ("s3", "s3_bucket", "s3_signing", "s3_wire")),
    "azure": ("dr_pipelines/storage/azure",),
    # base_backup speaks the replication protocol over libpq; the demo's shop is a client, not a part of the product.
    "psycopg": (
        "dr_pipelines/postgres/session.py",
        "dr_pipelines/postgres/server.py",
        "dr_pipelines/postgres/base_backup.py",
        "dr_pipelines/embedded/shop.py",
    ),
    "dagster": (
        "assets/",
        "schedules/",
        "sensors/",
        *(
            f"dr_pipelines/{name}.py"
            for name in (
                "definitions",
                "resources",
                "store_resources",
                "jobs",
                "metadata",
                "report_metadata",
                "file_metadata",
            )
        ),
    ),
    "typer": ("dr_pipelines/cli/",),
    "great_expectations": ("dr_pipelines/validation/expectations.py",),
    "pandas": ("dr_pipelines/validation/expectations.py",),
    "pyarrow": ("dr_pipelines/files/", "dr_pipelines/reconcile/"),
    "matplotlib": ("dr_pipelines/reports/recoverability.py",),
}
"""Who may import a library."""

CALLS: dict[str, tuple[str, ...]] = {
    "os.environ": (
        "dr_pipelines/__init__.py",  # for libraries that are loaded after it; so is the next
        "dr_pipelines/files/__init__.py",
        "dr_pipelines/plan/references.py",
        "dr_pipelines/commands.py",
        "dr_pipelines/embedded/",
    ),
    "os.getenv": (),
    "os.system": (),
    "time.sleep": ("dr_pipelines/clock.py",),
    "time.time": ("dr_pipelines/clock.py",),
    "time.monotonic": ("dr_pipelines/clock.py",),
    "datetime.now": ("dr_pipelines/clock.py",),
    "datetime.utcnow": (),
    "print": ("dr_pipelines/cli/", "dr_pipelines/embedded/"),
    "sys.exit": ("dr_pipelines/cli/", "dr_pipelines/embedded/"),
}
"""Who may use a name."""


@dataclass(frozen=True)
class Module:
    """A source file: `path` from the project's root, `layer` the first name below the package."""

    path: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        return part_of(self.path.removesuffix(".py").replace("/", "."))

    def imports(self) -> Iterator[str]:
        """Dotted names; `from a import b` gives `a.b`, which may be a module or a name in one. Imports for types
        alone count too: a layer that knows a higher one's types knows too much."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def uses(self) -> Iterator[str]:
        """Names as they are written: `os.environ`, `print`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                yield ".".join(ast.unparse(node).split(".")[-2:])
            elif isinstance(node, ast.Name):
                yield node.id


def part_of(dotted: str) -> str:
    first, _, rest = dotted.partition(".")
    return (rest.split(".")[0] or "__init__") if first == "dr_pipelines" else first


def modules() -> list[Module]:
    files = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return [Module(file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())) for file in files]


MODULES = modules()
HEIGHTS = {name: height for height, layer in enumerate(LAYERS) for name in layer}


@pytest.fixture(params=MODULES, ids=lambda module: module.path)
def module(request: pytest.FixtureRequest) -> Module:
    found: Module = request.param
    return found


def own_imports(module: Module) -> set[str]:
    """The parts of this project that a module imports."""
    names = {name for name in module.imports() if name.split(".")[0] in PACKAGES}
    # `from dr_pipelines import __version__` is the package itself.
    return {part if (part := part_of(name)) in HEIGHTS else "__init__" for name in names}


def test_every_module_has_a_layer() -> None:
    assert {module.layer for module in MODULES} <= set(HEIGHTS)


def test_imports_point_down(module: Module) -> None:
    upward = {name for name in own_imports(module) if HEIGHTS[name] > HEIGHTS[module.layer]}
    assert not upward


def test_no_rim_imports_another(module: Module) -> None:
    # Schedules and sensors start what the assets define: they need to know its partitions.
    allowed = {"definitions": RIMS, "schedules": {"assets"}, "sensors": {"assets"}}.get(module.layer, frozenset())
    assert not (own_imports(module) & RIMS) - {module.layer} - allowed


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_at_its_door(library: str) -> None:
    users = {module.path for module in MODULES if any(name.split(".")[0] == library for name in module.imports())}
    assert {path for path in users if not path.startswith(DOORS[library])} == set()


@pytest.mark.parametrize("name", CALLS)
def test_a_name_is_used_at_its_door(name: str) -> None:
    users = {module.path for module in MODULES if name in module.uses()}
    assert {path for path in users if not path.startswith(CALLS[name])} == set()
