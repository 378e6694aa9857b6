"""The values of the plan as people write them: "7 days", "daily", "continuous", "12 months"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

import bech32
import pytimeparse2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from dr_pipelines.plan.cron import WORDS, distances, is_schedule
from dr_pipelines.plan.references import is_reference

_COUNT = re.compile(r"\A\s*(\d{1,9})\s*(day|week|month)s?\s*\Z")
_LONGEST = timedelta(days=36_500)


class Model(BaseModel):
    """Base of all parts of the plan: frozen, and an unknown key is a mistake. Built as one, when a plan is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)


def left_out() -> Any:
    """The default of a section: as if it stood there and were empty. An instance would have to be built, and with it
    what validates it, wherever this is imported."""
    return Field(default={}, validate_default=True)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    text = value if isinstance(value, str) and re.search("[a-z]", value) else ""  # a number alone has no unit
    seconds = pytimeparse2.parse(text)
    if seconds is None or "-" in text:
        raise ValueError('not a duration; write it like "30 minutes", "1 hour" or "7 days"')
    if seconds > _LONGEST.total_seconds():
        raise ValueError("more than a hundred years; write less")
    return timedelta(seconds=float(seconds))


_TEXT = WithJsonSchema({"type": "string"})


def format_duration(value: timedelta) -> str:
    """`1 hour 30 minutes`: the largest units first, as the plan writes them."""
    seconds = int(value.total_seconds())
    parts = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count != 1 else ''}")
    return " ".join(parts) or "0 minutes"


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(format_duration, return_type=str), _TEXT]
PositiveDuration = Annotated[Duration, Field(gt=timedelta(0))]


class Schedule(Model):
    """When something is due. `text` is as the plan says it, `cron` five fields in UTC."""

    text: str
    cron: str

    @property
    def interval(self) -> timedelta:
        """The shortest distance between two of its next ticks."""
        return distances(self.cron).shortest

    @property
    def longest_interval(self) -> timedelta:
        """The longest distance between two of its next ticks."""
        return distances(self.cron).longest


def _schedule(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value
    cron = WORDS.get(value.strip().lower(), value.strip()) if isinstance(value, str) else ""
    if not is_schedule(cron):
        raise ValueError(f"not a schedule; write one of {', '.join(WORDS)}, or five cron fields in UTC")
    return {"text": value, "cron": cron}


ScheduleField = Annotated[
    Schedule, BeforeValidator(_schedule), PlainSerializer(lambda s: s.text, return_type=str), _TEXT
]


def _count_of(unit: str) -> Any:
    def parse(value: Any) -> Any:
        if not isinstance(value, str | bool):
            return value
        match = _COUNT.match(str(value))
        if match is None or match[2] != unit:
            raise ValueError(f'write a number of {unit}s, like "4 {unit}s"')
        return int(match[1])

    def written(count: int) -> str:
        return f"{count} {unit}{'s' if count != 1 else ''}"

    return Annotated[
        int,
        BeforeValidator(parse),
        Field(ge=0, le=_LONGEST.days),
        PlainSerializer(written, return_type=str),
        WithJsonSchema({"type": ["string", "integer"]}),
    ]


Days = _count_of("day")
Weeks = _count_of("week")
Months = _count_of("month")


_SHARE = re.compile(r"\A\s*(\d{1,3})\s*(%|percent)\s*\Z")


def _share(value: Any) -> Any:
    if not isinstance(value, str | bool):
        return value
    match = _SHARE.match(str(value))
    if match is None:
        raise ValueError('not a share; write it like "30 %"')
    return int(match[1])


Share = Annotated[
    int,
    BeforeValidator(_share),
    Field(ge=1, le=100),
    PlainSerializer(lambda percent: f"{percent} %", return_type=str),
    WithJsonSchema({"type": ["string", "integer"]}),
]
"""In percent."""


_KEY_LENGTH = 52
"""Of 32 bytes, in characters of five bits."""


def _recipient(value: str) -> str:
    if is_reference(value):
        return value  # not set here: `EncryptionPlan.public_keys` says so where it is used
    prefix, data = bech32.bech32_decode(value)
    if prefix != "age" or data is None or len(data) != _KEY_LENGTH:
        raise ValueError("not an age recipient; `dr key new` prints one (it starts with age1)")
    return value


Recipient = Annotated[str, AfterValidator(_recipient)]
SLOT_PATTERN = r"^[a-z0-9_]{1,54}$"
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
