"""The demo's files: pictures and documents of a shop, lost and damaged, and compared once they are back."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

COUNT = 600
_LARGEST = 60_000
_LOST, _DAMAGED = 5, 7
"""Every so many-th file."""


def fill(folder: Path, *, seed: int = 1) -> None:
    """Files in a few folders, each with a name in which a shop would find it."""
    rng = random.Random(seed)
    for number in range(COUNT):
        place = folder / f"product {number % 20:02}"
        place.mkdir(parents=True, exist_ok=True)
        half = rng.randrange(1, _LARGEST) // 2
        (place / f"bild-{number:04} größe.jpg").write_bytes(rng.randbytes(half) + f"{number} ".encode() * (half // 5))


def change(folder: Path) -> int:
    """A day's work: some files get a new version. How many."""
    changed = _files(folder)[::50]
    for path in changed:
        path.write_bytes(path.read_bytes() + b"a new version")
    return len(changed)


def lose(folder: Path) -> tuple[int, int]:
    """What a bad script does: it deletes some files and writes zeros over others. How many of each."""
    files = _files(folder)
    lost, damaged = files[::_LOST], [path for path in files[::_DAMAGED] if path not in files[::_LOST]]
    for path in lost:
        path.unlink()
    for path in damaged:
        path.write_bytes(bytes(path.stat().st_size))
    return len(lost), len(damaged)


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its path."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
