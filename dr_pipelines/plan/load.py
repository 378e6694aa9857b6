"""From a YAML file to a `Plan`, with every mistake named by its path and line."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from dr_pipelines.errors import PlanError
from dr_pipelines.plan.consistency import Mistake, mistakes
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.references import Secret, environment, is_reference, resolve

DEFAULT_PLAN = "dr_plan.yaml"


def default_plan_path() -> Path:
    """`$DR_PLAN`, or `dr_plan.yaml` here."""
    return Path(environment().get("DR_PLAN") or DEFAULT_PLAN)


def load_plan(path: Path) -> Plan:
    """Read and judge a plan. Secrets need not be there.

    Raises `PlanError` with all mistakes, one a line: YAML path, line, what was found, what would be right.
    """
    document = _read(path)
    found: list[Mistake] = []
    resolved = _resolve(document, path.absolute().parent, (), found, document)
    if found:
        raise _refused(path, found)
    try:
        plan = Plan.model_validate(resolved, context={"base": path.absolute().parent})
    except ValidationError as error:
        raise _refused(path, _judged(error, document)) from None
    contradictions = [_with_line(mistake, document) for mistake in mistakes(plan)]
    if contradictions:
        raise _refused(path, contradictions)
    return plan


def _read(path: Path) -> Any:
    try:
        document = YAML(typ="rt").load(path.read_text())
    except FileNotFoundError:
        raise PlanError(
            f"there is no plan at {path}",
            hint="name it with --plan or DR_PLAN; dr_plan.yaml of the project is an example.",
        ) from None
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not text in UTF-8", hint="save it as UTF-8 and run `dr plan check`.") from None
    except OSError as error:
        raise PlanError(f"cannot read the plan at {path}: {error.strerror}") from error
    except MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        line = f" line {where.line + 1}" if where else ""
        raise PlanError(
            f"{path}{line}: not YAML: {error.problem}", hint="mend the line and run `dr plan check`."
        ) from None
    if document is None:
        raise PlanError(f"{path} line 1: the plan is empty", hint="run `dr plan schema` to see its sections.")
    if not isinstance(document, dict):
        raise PlanError(
            f"{path} line 1: found a {type(document).__name__}, a plan is a mapping of sections",
            hint="run `dr plan schema` to see them.",
        )
    return document


def _resolve(node: Any, base: Path, path: tuple[Any, ...], found: list[Mistake], document: Any) -> Any:
    """A plain copy of the document with the references of plain fields replaced; those of secrets stay."""
    if isinstance(node, dict):
        return {key: _resolve(value, base, (*path, key), found, document) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(value, base, (*path, index), found, document) for index, value in enumerate(node)]
    if not isinstance(node, str) or _is_secret(path):
        return str(node) if isinstance(node, str) else node
    try:
        return resolve(node, base)
    except (ValueError, OSError) as error:
        if path[:2] == ("encryption", "recipients") and is_reference(node):
            return str(node)  # public, and needed only where something is written
        found.append(
            Mistake(_dotted(path), str(error), "set it, or write a default: ${ENV:NAME:-value}", _line(document, path))
        )
        return node


def _is_secret(path: tuple[Any, ...]) -> bool:
    return bool(SECRET_FIELDS.intersection(path[-1:])) or path[:2] == ("communication", "channels")


def _refused(path: Path, found: list[Mistake]) -> PlanError:
    count = f"{len(found)} mistake{'s' if len(found) != 1 else ''}"
    listed = "\n".join(f"  {mistake}" for mistake in found)
    return PlanError(
        f"{path}: {count}\n{listed}", hint="mend the plan and run `dr plan check`; `dr plan schema` lists every key."
    )


def _judged(error: ValidationError, document: Any) -> list[Mistake]:
    details = error.errors(include_url=False)
    # A collection whose members are wrong is also "too short": only the members are news.
    return [
        _mistake(detail, document)
        for detail in details
        if not any(other is not detail and other["loc"][: len(detail["loc"])] == detail["loc"] for other in details)
    ]


def _mistake(detail: ErrorDetails, document: Any) -> Mistake:
    location = _in_document(detail["loc"], detail["type"], document)
    path, line = _dotted(location), _line(document, location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return Mistake(path, "unknown key", meant, line)
    if detail["type"] == "missing":
        return Mistake(path, "is missing", "add it", line)
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(detail["input"], dict | list) or _is_secret(location) else f"found {detail['input']!r}"
    return Mistake(path, shown or "is not right", message[:1].lower() + message[1:], line)


def _in_document(loc: tuple[Any, ...], kind: str, document: Any) -> tuple[Any, ...]:
    """pydantic's location without what is not in the document (tags of unions)."""
    kept: list[Any] = []
    node = document
    for position, part in enumerate(loc):
        inside = (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int))
        if inside:
            kept.append(part)
            node = node[part]
        elif position == len(loc) - 1 and kind == "missing":
            kept.append(part)
    return tuple(kept)


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """The keys that the model has at a location."""
    types_here: list[Any] = [Plan]
    for part in loc:
        types_here = [inner for here in types_here for inner in _step(here, part)]
    models = [model for here in types_here for model in _models(here)]
    return sorted({name for model in models for name in model.model_fields})


def _step(annotation: Any, part: Any) -> Iterator[Any]:
    for model in _models(annotation):
        if part in model.model_fields:
            yield model.model_fields[part].annotation
        elif "type" in model.model_fields and part in typing.get_args(model.model_fields["type"].annotation):
            yield model  # a union's tag
    origin = typing.get_origin(annotation)
    if origin is dict:
        yield typing.get_args(annotation)[1]
    elif origin is tuple:
        yield typing.get_args(annotation)[0]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        for inner in typing.get_args(annotation):
            yield from _models(inner)


def _secret_fields(annotation: Any, seen: set[Any]) -> Iterator[str]:
    for model in _models(annotation):
        if model in seen:
            continue
        seen.add(model)
        for name, field in model.model_fields.items():
            if Secret in (field.annotation, *typing.get_args(field.annotation)):
                yield name
            yield from _secret_fields(field.annotation, seen)
    for inner in typing.get_args(annotation):
        yield from _secret_fields(inner, seen)


SECRET_FIELDS = frozenset(_secret_fields(Plan, set()))


def _with_line(mistake: Mistake, document: Any) -> Mistake:
    return Mistake(mistake.path, mistake.found, mistake.expected, _line(document, tuple(mistake.path.split("."))))


def _dotted(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "(top level)"


def _line(document: Any, path: tuple[Any, ...]) -> int | None:
    """The line of the deepest part of `path` that is in the document, from 1."""
    node: Any = document
    line: int | None = None
    for part in path:
        try:
            where: Any = node.lc
            place = where.key(part) if isinstance(node, dict) else where.item(part)
            line, node = place[0] + 1, node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line
