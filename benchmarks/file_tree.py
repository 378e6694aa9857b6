"""The files that the benchmark takes snapshots of, always the same for the same numbers, and what there is to compare
of a tree. Little is held in memory at a time."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 20
LARGE_FILES, LARGE = 8, 48_000_000
FILES_A_FOLDER = 20
DEEPEST = 8
SIGMA = 1.5
"""Of the sizes' logarithm: half of the files are smaller than a third of the mean."""
LINKS = 0.005
CHANGED = 0.01
OLDEST = 1_700_000_000
YEAR = 365 * 86400


class Tree:
    """Files of lognormal sizes, `megabytes` of 10^6 bytes in all, in folders within folders, and beside them a few large
    ones. A third of the files, and half of the large ones, do not compress."""

    def __init__(self, root: Path, files: int, megabytes: int) -> None:
        self._root, self._random = root, random.Random(0)
        self._words = _words(self._random)
        root.mkdir(parents=True)
        sizes = [self._random.lognormvariate(0, SIGMA) for _ in range(files)]
        scale = megabytes * 1_000_000 / sum(sizes)
        self._files = self._place([int(size * scale) for size in sizes])
        for number in range(LARGE_FILES):
            self._write(root / f"video-{number}.bin", LARGE, compressible=number % 2 == 0)

    def change(self) -> None:
        """Every hundredth of the small files: half are written anew, half grow by some lines."""
        for number, path in enumerate(self._random.sample(self._files, int(len(self._files) * CHANGED))):
            if number % 2:
                self._write(path, path.stat().st_size, compressible=True)
            else:
                with path.open("ab") as file:
                    file.write(self._text(500))

    def _place(self, sizes: list[int]) -> list[Path]:
        folders, placed = [self._root], []
        for number, size in enumerate(sizes):
            if number % FILES_A_FOLDER == 0:
                folders.append(self._new_folder(folders))
            path = (
                self._random.choice(folders)
                / f"{self._name()}-{number}{self._random.choice(('.jpg', '.txt', '.json'))}"
            )
            self._write(path, size, compressible=self._random.random() > 1 / 3)
            at = OLDEST + self._random.random() * YEAR
            os.utime(path, (at, at))
            if self._random.random() < LINKS:
                path.with_suffix(".link").symlink_to(path.name)
            placed.append(path)
        return placed

    def _new_folder(self, folders: list[Path]) -> Path:
        """In any that is there, so that few are near the root and few are deep."""
        parent = self._random.choice(folders)
        while len(parent.parts) - len(self._root.parts) >= DEEPEST:
            parent = parent.parent
        folder = parent / f"{self._name()} {len(folders)}"
        folder.mkdir()
        return folder

    def _name(self) -> str:
        return self._random.choice(self._words).decode()

    def _write(self, path: Path, size: int, *, compressible: bool) -> None:
        with path.open("wb") as file:
            for begin in range(0, size, PIECE):
                piece = min(PIECE, size - begin)
                file.write(self._text(piece) if compressible else self._random.randbytes(piece))

    def _text(self, size: int) -> bytes:
        """No two passages are alike: what is stored once for several files would favour who cuts files into chunks. A word
        and its space have eight letters on average."""
        numbers = memoryview(self._random.randbytes(2 * (size // 7 + 64))).cast("H")
        return b" ".join(map(self._words.__getitem__, numbers))[:size]


def _words(source: random.Random) -> list[bytes]:
    """As often as in a language (by Zipf's law), for a number of 16 bits."""
    vocabulary = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 11))) for _ in range(20_000)]
    return source.choices(vocabulary, [1 / rank for rank in range(1, len(vocabulary) + 1)], k=1 << 16)


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file with its mode, time and SHA-256, every link with its target, every folder with its mode."""
    return {str(path.relative_to(root)): _told(path) for path in _walk(root)}


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _told(path: Path) -> tuple[object, ...]:
    if path.is_symlink():
        return ("link", str(path.readlink()))
    about = path.stat()
    if path.is_dir():
        return ("folder", about.st_mode)
    with path.open("rb") as file:
        return ("file", about.st_mode, about.st_mtime_ns, hashlib.file_digest(file, "sha256").digest())
