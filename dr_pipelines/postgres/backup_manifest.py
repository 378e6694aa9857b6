"""PostgreSQL's `backup_manifest`: what the server says that a backup holds.

Source: PostgreSQL manual, "Backup Manifest Format".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c

from dr_pipelines.errors import IntegrityError
from dr_pipelines.lsn import Lsn, Timeline

_PIECE = 128 * 1024


@dataclass(frozen=True)
class ManifestFile:
    """`size` in bytes; `checksum` in hex, of `algorithm` (`NONE`, `CRC32C`, `SHA224` … `SHA512`)."""

    path: str
    size: int
    algorithm: str
    checksum: str


@dataclass(frozen=True)
class NeededWal:
    """WAL without which the backup is not consistent."""

    timeline: Timeline
    start: Lsn
    end: Lsn


@dataclass(frozen=True)
class ServerManifest:
    """The parsed file; `system_id` is None before PostgreSQL 17."""

    files: Mapping[str, ManifestFile]
    wal_ranges: tuple[NeededWal, ...]
    system_id: str | None


def parse(data: bytes) -> ServerManifest:
    """Raises `IntegrityError` when the file is not what its own checksum says."""
    try:
        document = json.loads(data)
        last_line = data.rstrip(b"\n").rfind(b"\n") + 1
        if hashlib.sha256(data[:last_line]).hexdigest() != document["Manifest-Checksum"]:
            raise IntegrityError("the backup_manifest is not what its own checksum says")
        files = [_file(entry) for entry in document["Files"]]
        ranges = tuple(_range(entry) for entry in document["WAL-Ranges"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"the backup_manifest cannot be read: {error}") from error
    system_id = document.get("System-Identifier")
    return ServerManifest({file.path: file for file in files}, ranges, None if system_id is None else str(system_id))


def _file(entry: dict[str, Any]) -> ManifestFile:
    path = entry.get("Path")
    if path is None:
        path = bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")
    return ManifestFile(path, entry["Size"], entry.get("Checksum-Algorithm", "NONE"), entry.get("Checksum", ""))


def _range(entry: dict[str, Any]) -> NeededWal:
    return NeededWal(Timeline(entry["Timeline"]), Lsn.parse(entry["Start-LSN"]), Lsn.parse(entry["End-LSN"]))


class Checksum(Protocol):
    """A running checksum of a file."""

    def update(self, data: memoryview) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32c:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        # The library takes bytes only; pieces that fit the processor's cache are copied for next to nothing.
        for start in range(0, len(data), _PIECE):
            self._value = google_crc32c.extend(self._value, bytes(data[start : start + _PIECE]))

    def hexdigest(self) -> str:
        # PostgreSQL writes the number as it lies in memory, least significant byte first.
        return self._value.to_bytes(4, "little").hex()


class _Nothing:
    def update(self, data: memoryview) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def new_checksum(algorithm: str) -> Checksum:
    """Raises `IntegrityError` for an algorithm that we do not know."""
    if algorithm == "NONE":
        return _Nothing()
    if algorithm == "CRC32C":
        return _Crc32c()
    if algorithm in ("SHA224", "SHA256", "SHA384", "SHA512"):
        return hashlib.new(algorithm.lower())
    raise IntegrityError(f"the backup_manifest uses an unknown checksum: {algorithm}")
