"""What is wrong with a plan's shape, said to the person who wrote it: pydantic's errors in the plan's own words."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dr_pipelines.plan.addresses import BUCKET_PATTERN
from dr_pipelines.plan.mistake import Mistake, dotted, line_of
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.references import Secret
from dr_pipelines.plan.values import NAME_PATTERN, SLOT_PATTERN

_DAY = "write a day like 2026-01-31"
_EXPECTED = {
    "dict_type": "write a mapping of keys to values",
    "model_type": "write a mapping of keys to values",
    "model_attributes_type": "write a mapping of keys to values",
    "tuple_type": "write a list, one line with a dash for each member",
    "string_type": "write text, in quotes where it looks like a number",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "time_delta_type": 'write a duration like "30 minutes", "1 hour" or "7 days"',
    "date_type": _DAY,
    "date_parsing": _DAY,
    "date_from_datetime_parsing": _DAY,
    "date_from_datetime_inexact": _DAY,
    "path_type": "write the path as text",
    "string_too_short": "write something",
    "too_short": "name at least one",
    "greater_than": "write more than nothing",
}
_NAME = "a name is small letters, digits, - and _, begins with a letter, and is at most 63 long"
_PATTERNS = {
    NAME_PATTERN: _NAME,
    BUCKET_PATTERN: "a bucket's name is letters, digits and . _ -, at least 3; a folder in it is `prefix`",
    SLOT_PATTERN: "a slot's name is small letters, digits and _, at most 54 long",
}


def explain(error: ValidationError, document: Any) -> list[Mistake]:
    """pydantic's errors as mistakes of the document that `ruamel.yaml` read."""
    details = error.errors(include_url=False)
    # A collection whose members are wrong is also "too short": only the members are news.
    return [
        _mistake(detail, document)
        for detail in details
        if not any(other is not detail and other["loc"][: len(detail["loc"])] == detail["loc"] for other in details)
    ]


def _mistake(detail: ErrorDetails, document: Any) -> Mistake:
    location = _in_document(detail["loc"], detail["type"], document)
    path, line = dotted(location), line_of(document, location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return Mistake(path, "unknown key", meant, line)
    if detail["type"] == "missing":
        return Mistake(path, "is missing", "add it", line)
    if detail["loc"][-1:] == ("[key]",) and detail["type"] == "literal_error":
        return Mistake(path, "unknown key", f"known here: {detail['ctx']['expected']}", line)
    if detail["loc"][-1:] == ("[key]",):
        return Mistake(path, f"{detail['input']!r} is not a name", _NAME, line)
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = detail["input"].get("type")
        kinds = detail["ctx"]["expected_tags"] if tag else "s3, azure or local"
        return Mistake(f"{path}.type", f"found {tag!r}" if tag else "is missing", f"write {kinds}", line)
    expected = _EXPECTED.get(detail["type"], _words(detail))
    whole = detail["type"] == "value_error" and isinstance(detail["input"], dict)
    return Mistake(path, "contradicts itself" if whole else _found(detail["input"], location), expected, line)


def _words(detail: ErrorDetails) -> str:
    pattern = detail.get("ctx", {}).get("pattern")
    if pattern in _PATTERNS:
        return _PATTERNS[pattern]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _found(value: object, location: tuple[Any, ...]) -> str:
    if is_secret(location):
        return "is no reference"  # the value itself is not repeated: it may be the secret
    if location[-1:] in (("endpoint",), ("account_url",)) and re.search("[@?]", str(value)):
        return "is no address"  # and may hold credentials
    if isinstance(value, dict):
        return "found a mapping"
    if isinstance(value, list):
        return "found a list" if value else "is empty"
    if isinstance(value, str) and value.upper().startswith("AGE-SECRET-KEY-"):
        return "is a private key"
    return "found nothing" if value is None else f"found {value!r}"


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


def is_secret(path: tuple[Any, ...]) -> bool:
    """Whether what is written at a path must never be repeated."""
    return bool(SECRET_FIELDS.intersection(path[-1:])) or path[:2] == ("communication", "channels")
