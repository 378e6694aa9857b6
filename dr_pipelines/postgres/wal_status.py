"""What the WAL stream tells the rest of the house about itself: one small JSON file, replaced atomically.

What does not belong here: judging it. A reader that finds `updated_at` old knows that no stream runs.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dr_pipelines.repository.manifest import LsnField, TimelineField

State = Literal["starting", "streaming", "waiting", "stopped"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, defer_build=True)


class TierStatus(_Record):
    """How far one tier is: up to `shipped_lsn` on `timeline`. `lag_bytes` lie in the spool and are not there yet."""

    required: bool = True
    timeline: TimelineField | None = None
    shipped_lsn: LsnField | None = None
    lag_bytes: int | None = None
    last_error: str | None = None
    updated_at: datetime | None = None


class Gap(_Record):
    """WAL that the stream could not get. Until a full backup is taken after `at`, nothing beyond `start` can be reached
    from the backups before it."""

    reason: str
    start: LsnField | None = None
    end: LsnField | None = None
    at: datetime


class StreamStatus(_Record):
    """The stream as it is now. `state` is `waiting` while the server does not answer or the receiver does not stay;
    `sync_state` is what the server says of the receiver (`sync`, `quorum`, `potential`, `async`; None: not there), and
    `lag_bytes` what was on its disk a moment ago and is not on this host (None: not known)."""

    server: str
    pid: int
    receiver_pid: int | None = None
    state: State = "starting"
    system_id: str | None = None
    timeline: TimelineField | None = None
    received_lsn: LsnField | None = None
    lag_bytes: int | None = None
    sync_state: str | None = None
    last_error: str | None = None
    gap: Gap | None = None
    updated_at: datetime
    tiers: dict[str, TierStatus] = {}


def news(before: StreamStatus | None, after: StreamStatus) -> list[str]:
    """What changed, a sentence each, for whoever watches the stream's output; nothing at its start and end."""
    told = []
    if _stream_line(after) not in (None, before and _stream_line(before)):
        told.append(str(_stream_line(after)))
    if after.gap is not None and (before is None or after.gap != before.gap):
        told.append(f"WAL was lost: {after.gap.reason}")
    for tier, at in after.tiers.items():
        was = before.tiers[tier].last_error if before is not None and tier in before.tiers else None
        if at.last_error != was:
            told.append(f"{tier}: {at.last_error or 'takes WAL again'}")
    return told


def _stream_line(status: StreamStatus) -> str | None:
    if status.state == "streaming":
        seen = ", ".join(text for text in (status.sync_state, status.last_error) if text)
        return f"streaming, {seen}" if status.receiver_pid and seen else None
    return f"waiting: {status.last_error}" if status.state == "waiting" and status.last_error else None


def read_status(path: Path) -> StreamStatus | None:
    """None when no stream has ever run here, or the file is not one of ours."""
    try:
        return StreamStatus.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_status(path: Path, status: StreamStatus) -> None:
    """A reader sees the old status or the new one, never a part. One writer at a time."""
    scratch = path.with_name(f"{path.name}.unfinished")
    with scratch.open("w") as file:
        file.write(status.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a gap that a power cut made us forget would be one that nobody hears of
    scratch.replace(path)
