"""From a YAML file to a `Plan`, with every mistake named by its path and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from dr_pipelines.errors import PlanError, SecretMissing
from dr_pipelines.plan.consistency import missing_secrets, mistakes
from dr_pipelines.plan.explain import explain, is_secret
from dr_pipelines.plan.mistake import Mistake, dotted, line_of
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.references import environment, is_reference, malformed, resolve

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
        raise _refused(path, explain(error, document)) from None
    contradictions = [mistake.within(document) for mistake in mistakes(plan)]
    if contradictions:
        raise _refused(path, contradictions)
    return plan


def check_secrets(plan: Plan, path: Path) -> None:
    """Raises `SecretMissing` with everything that the plan at `path` refers to and that is not here."""
    document = _read(path)
    missing = [mistake.within(document) for mistake in missing_secrets(plan)]
    if missing:
        listed = "\n".join(f"  {mistake}" for mistake in missing)
        raise SecretMissing(f"{path}: missing here: {len(missing)}\n{listed}", hint="then run `dr plan check` again.")


class _DatesAsText(RoundTripConstructor):
    """A day that no month has is a mistake of its key, and not of YAML."""


_DatesAsText.add_constructor("tag:yaml.org,2002:timestamp", _DatesAsText.construct_yaml_str)


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Constructor = _DatesAsText
    return yaml


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlanError(
            f"there is no plan at {path}",
            hint="name it with --plan or DR_PLAN; dr_plan.yaml of the project is an example.",
        ) from None
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not text in UTF-8", hint="save it as UTF-8 and run `dr plan check`.") from None
    except OSError as error:
        raise PlanError(
            f"cannot read the plan at {path}: {error.strerror}", hint="name a file with --plan or DR_PLAN."
        ) from error
    try:
        document = _yaml().load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise PlanError(
            f"{path}{_not_yaml(error, text)}", hint="mend the line and run `dr plan check` again."
        ) from None
    if document is None:
        raise PlanError(f"{path} line 1: the plan is empty", hint="run `dr plan schema` to see its sections.")
    if not isinstance(document, dict):
        found = "a list" if isinstance(document, list) else "a single value"
        raise PlanError(
            f"{path} line 1: found {found}; a plan is a mapping of sections",
            hint="run `dr plan schema` to see them.",
        )
    return document


def _not_yaml(error: Exception, text: str) -> str:
    """Where and why, in words that repeat no value: it may be a secret."""
    if isinstance(error, RecursionError):
        return ": not YAML that can be read: it is nested too deeply"
    if not isinstance(error, YAMLError):
        return ": not YAML: a value is not of the type that its tag (!!…) names"
    mark = (error.problem_mark or error.context_mark) if isinstance(error, MarkedYAMLError) else None
    if not isinstance(error, MarkedYAMLError) or mark is None:
        return ": not YAML: it has characters that do not belong in text"
    why, line = error.problem, "".join(text.splitlines()[mark.line : mark.line + 1])
    if isinstance(error, DuplicateKeyError):
        key = re.match(r'found duplicate key "([^"]*)"', error.problem or "")
        why = f"the key {key[1] if key else ''!r} is there twice; keep one of them"
    elif re.match(r"found (undefined|duplicate) ", why or ""):  # names what is written there
        why = "* begins an alias and & an anchor; put quotes around a value that begins so"
    elif re.search("^[{}]", text, re.MULTILINE) and not text.lstrip().startswith("{"):
        why = "a block of JSON is indented deeper than the key that it stands under"
    elif "\t" in line:
        why = "found a tab; indent with spaces"
    return f" line {mark.line + 1}: not YAML: {why}"


def _resolve(node: Any, base: Path, path: tuple[Any, ...], found: list[Mistake], document: Any) -> Any:
    """A plain copy of the document with the references of plain fields replaced; those of secrets stay."""
    if isinstance(node, dict):
        return {key: _resolve(value, base, (*path, key), found, document) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(value, base, (*path, index), found, document) for index, value in enumerate(node)]
    if not isinstance(node, str) or is_secret(path):
        return str(node) if isinstance(node, str) else node
    if (wrong := malformed(node)) is not None and not _is_for_others(path):
        expected = "a reference is ${ENV:NAME}, ${ENV:NAME:-value} or ${FILE:path}"
        # The value is not repeated: what stands before may be a secret.
        found.append(Mistake(dotted(path), f"found {wrong!r}", expected, line_of(document, path)))
        return node
    try:
        return resolve(node, base)
    except (ValueError, OSError) as error:
        if path[:2] == ("encryption", "recipients") and is_reference(node):
            return str(node)  # public, and needed only where something is written
        found.append(
            Mistake(dotted(path), str(error), "set it, or write a default: ${ENV:NAME:-value}", line_of(document, path))
        )
        return node


def _is_for_others(path: tuple[Any, ...]) -> bool:
    """Words for people, and commands, which may hold a shell's `${NAME}`."""
    return path[0] in ("recovery", "testing", "documentation") or bool({"stop", "start", "probe"} & set(path))


def _refused(path: Path, found: list[Mistake]) -> PlanError:
    count = f"{len(found)} mistake{'s' if len(found) != 1 else ''}"
    listed = "\n".join(f"  {mistake}" for mistake in found)
    return PlanError(
        f"{path}: {count}\n{listed}", hint="mend the plan and run `dr plan check`; `dr plan schema` lists every key."
    )
