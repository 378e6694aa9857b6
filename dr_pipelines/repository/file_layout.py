"""Every key of a file set: its snapshots, the archives that hold the contents of files, and the lists of these.
FORMAT.md says what lies under each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.repository.layout import LabelLayout, parse_stamp, stamp

FILES = "files/"
_LABEL = re.compile(r"\A(\d{8}T\d{6}Z)-snapshot\Z")
_ARCHIVE = re.compile(r"\A\d{8}T\d{6}Z-\d{6}\Z")
_LIST = ".json.zst"


def snapshot_label(taken: datetime) -> str:
    """`20261123T020000Z-snapshot`: unique for a file set by the claim that its taker makes on it."""
    return f"{stamp(taken)}-snapshot"


def parse_snapshot_label(label: str) -> datetime:
    """When it was begun. Raises `ValueError` when it is not a label."""
    match = _LABEL.match(label)
    if match is None:
        raise ValueError(f"not a snapshot's label: {label!r}")
    return parse_stamp(match[1])


def file_set_of(key: str) -> str:
    return key.removeprefix(FILES).partition("/")[0]


def file_set_prefix(file_set: str) -> str:
    """Everything of one file set."""
    return f"{FILES}{file_set}/"


def snapshots_prefix(file_set: str) -> str:
    return f"{FILES}{file_set}/snapshots/"


def archives_prefix(file_set: str) -> str:
    return f"{FILES}{file_set}/archives/"


def lists_prefix(file_set: str) -> str:
    return f"{FILES}{file_set}/lists/"


def snapshot_of(file_set: str, key: str) -> str | None:
    """The label that a key below `snapshots_prefix` belongs to; None when it belongs to none."""
    label, slash, _ = key.removeprefix(snapshots_prefix(file_set)).partition("/")
    return label if slash and _LABEL.match(label) else None


def archive_of(file_set: str, key: str) -> str | None:
    """The archive that a key below `archives_prefix` belongs to; None when it belongs to none."""
    name, slash, _ = key.removeprefix(archives_prefix(file_set)).partition("/")
    return name if slash and _ARCHIVE.match(name) else None


def list_of(file_set: str, key: str) -> str | None:
    """The name of the list of archives that a key below `lists_prefix` is; None when it is none."""
    name = key.removeprefix(lists_prefix(file_set)).removesuffix(_LIST)
    return name if key.endswith(_LIST) and _ARCHIVE.match(name) else None


def archive_name(label: str, number: int) -> str:
    """`20261123T020000Z-000007`: of the snapshot that put it, though later ones use it too."""
    return f"{label.removesuffix('-snapshot')}-{number:06d}"


def archive_begun(name: str) -> datetime:
    """When the snapshot that put an archive, or a list of archives, was begun."""
    return parse_stamp(name.partition("-")[0])


def archive_pack(file_set: str, archive: str, number: int, suffix: str) -> str:
    return f"{archives_prefix(file_set)}{archive}/{number:06d}{suffix}"


def archive_list(file_set: str, name: str) -> str:
    """It is read without a key, as manifests are. Names are made as those of archives."""
    return f"{lists_prefix(file_set)}{name}{_LIST}"


@dataclass(frozen=True)
class SnapshotLayout(LabelLayout):
    """Keys of one snapshot. `suffix` is `.zst` or `.zst.age`."""

    file_set: str
    label: str

    @property
    def prefix(self) -> str:
        return f"{snapshots_prefix(self.file_set)}{self.label}/"

    def table(self, suffix: str) -> str:
        """All of its files, a row each."""
        return f"{self.prefix}table.parquet{suffix}"

    def changes(self, suffix: str) -> str:
        """The rows in which it differs from the table of another snapshot."""
        return f"{self.prefix}changes.parquet{suffix}"

    def is_content(self, key: str) -> bool:
        """Whether a manifest names it. (It names tables, lists and packs under other prefixes too.)"""
        return key.removeprefix(self.prefix).startswith(("table.parquet.", "changes.parquet.", "break-glass/"))
