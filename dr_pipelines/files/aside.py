"""Files that are about to be replaced, kept beside themselves under another name."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dr_pipelines.files.restore_directory import opened_below

REPLACED = r"\.dr-replaced-\d{8}T\d{6}Z$"
"""How the names of what was kept end."""


def name_aside(path: bytes, at: datetime) -> bytes:
    return path + f".dr-replaced-{at:%Y%m%dT%H%M%SZ}".encode()


def keep_aside(root: Path, path: bytes, at: datetime, *, size: int, digest: bytes | None) -> str | None:
    """A second name for the file, which is of this size and, where it is known, SHA-256: whatever takes its place, it
    stays. Why that was not done, or None."""
    folder, _, name = path.rpartition(b"/")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened_below(top, folder) as inside:
            return _link(inside, name, name_aside(name, at), size, digest)
    except OSError as error:
        return f"it cannot be kept beside itself: {(error.strerror or str(error)).lower()}"
    finally:
        os.close(top)


def drop_aside(root: Path, path: bytes, at: datetime) -> None:
    """The second name goes, because nothing took the file's place."""
    folder, _, name = path.rpartition(b"/")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError), opened_below(top, folder) as inside:
            os.unlink(name_aside(name, at), dir_fd=inside)
    finally:
        os.close(top)


def _link(folder: int, name: bytes, aside: bytes, size: int, digest: bytes | None) -> str | None:
    os.link(name, aside, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    descriptor = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        same = os.fstat(file.fileno()).st_size == size
        if same and digest is not None:
            same = hashlib.file_digest(file, "sha256").digest() == digest
    if not same:
        os.unlink(aside, dir_fd=folder)
        return "it was changed since it was looked at"
    return None
