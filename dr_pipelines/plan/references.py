"""References in the plan: `${ENV:NAME}`, `${ENV:NAME:-default}` and `${FILE:path}` (whose path may hold `${ENV:…}`).

The only place that reads the environment. Values of plain fields are resolved when the plan is loaded; a `Secret`
keeps its reference and is read at the last moment, so that no plan, log or error ever holds one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from dr_pipelines.errors import SecretMissing

_ENV = re.compile(r"\$\{ENV:([^}:]*)(?::-([^}$]*))?\}")
_FILE = re.compile(r"\$\{FILE:([^}]*)\}")
SECRET_PATTERN = r"^\$\{(ENV|FILE):.+\}$"
"""For the JSON Schema."""
_WHOLE = re.compile(r"\A(\$\{ENV:[^}]+\}|\$\{FILE:([^{}$]|\$\{ENV:[^}]+\})+\})\Z")


def environment() -> Mapping[str, str]:
    """The process's environment, for whoever may ask: the plan's loader and the programs that are given one."""
    return os.environ


def is_reference(text: str) -> bool:
    """Whether the whole text is one reference."""
    return _WHOLE.match(text) is not None


def malformed(text: str) -> str | None:
    """The first part of it that begins as a reference does and is none."""
    found = re.search(r"\$\{[^}]*\}?", _FILE.sub("", _ENV.sub("", text)))
    return found[0] if found else None


def resolve(text: str, base: Path) -> str:
    """Replace every reference in `text`; paths are relative to `base`, the plan's folder.

    Raises `ValueError` naming the reference when there is neither a value nor a default.
    """

    return _FILE.sub(lambda match: _of_file(base / match[1]), _ENV.sub(_of_environment, text))


def _of_environment(match: re.Match[str]) -> str:
    name, default = match[1], match[2]
    found = os.environ.get(name) or default
    if found is None:
        raise ValueError(f"the environment variable {name} is not set")
    return found


def _of_file(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ValueError(f"the file {path} is not there") from None
    if not content:
        raise ValueError(f"the file {path} is empty")
    return content


class Secret:
    """A reference to a secret; it prints as the reference."""

    def __init__(self, reference: str, base: Path) -> None:
        self.reference = reference
        self._base = base

    def reveal(self) -> str:
        """The secret itself. Raises `SecretMissing`."""
        try:
            return resolve(self.reference, self._base)
        except (ValueError, OSError) as error:
            raise SecretMissing(
                f"a secret of the plan is missing: {error}",
                hint="export the variable or write the file, then try again.",
            ) from error

    @property
    def present(self) -> bool:
        try:
            self.reveal()
        except SecretMissing:
            return False
        return True

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __str__(self) -> str:
        return self.reference

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": SECRET_PATTERN, "description": "a reference to a secret"}

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str) and (match := _ENV.fullmatch(value)) and match[2] is not None:
            raise ValueError("the default of a secret would be a secret in the plan: write ${ENV:NAME} or ${FILE:path}")
        if not isinstance(value, str) or not is_reference(value):
            # The value itself is not repeated: it may be the secret.
            raise ValueError("a secret is written as a reference, ${ENV:NAME} or ${FILE:path}, never as itself")
        return cls(value, (info.context or {}).get("base", Path()))
