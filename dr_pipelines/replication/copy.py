"""Objects from one repository to another, side by side, each proven by its SHA-256 before the last of it is put.

Memory is bounded by bytes in flight, whatever the number of objects. Which objects, in which order of batches, and what
damage means for a backup does not belong here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from dr_pipelines.errors import DrError, IntegrityError, ObjectNotFound
from dr_pipelines.progress import Progress
from dr_pipelines.repository.fetch import SourceFailed, streamed_body
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository

IN_FLIGHT = 256 * 1024 * 1024
_WORKERS = 16  # small objects are a matter of round trips; of packs, memory lets four be in flight
_AHEAD = 4 * _WORKERS


@dataclass(frozen=True)
class Damage:
    """An object that the source has not, or not whole. `error` names it and its tier."""

    stored: StoredObject
    error: DrError


@dataclass(frozen=True)
class Copied:
    """What one batch came to. What is `damaged` was not written; where a batch stops at damage, nor was the rest."""

    objects: int = 0
    bytes: int = 0
    already_there: int = 0
    damaged: tuple[Damage, ...] = ()

    def __add__(self, other: Copied) -> Copied:
        return Copied(
            self.objects + other.objects,
            self.bytes + other.bytes,
            self.already_there + other.already_there,
            self.damaged + other.damaged,
        )


class Copier:
    """Use as a context manager. `in_flight` is how many bytes may be in memory; what is larger goes alone."""

    def __init__(
        self, source: Repository, target: Repository, progress: Progress, *, in_flight: int = IN_FLIGHT
    ) -> None:
        self.source, self.target = source, target
        self._progress = progress
        # A condition costs nothing where the store has it; without it a put looks at the key first, which the listing
        # has done: what came since has the same content, for a label is claimed and WAL is named by its SHA-256.
        self._conditional = target.store.capabilities.conditional_put
        self._room = _Room(in_flight)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="replicate")

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def copy(
        self, objects: Iterable[StoredObject], there: Mapping[str, int], *, stop_at_damage: bool = False
    ) -> Copied:
        """`there` are the target's keys with their sizes: what is there with its size is not copied again, and what is
        there with another is replaced. Raises what a store raises; then nothing more is begun, and what was in flight
        has ended."""
        halt = threading.Event()
        missing = [stored for stored in objects if there.get(stored.key) != stored.size]
        already = [stored for stored in objects if there.get(stored.key) == stored.size]
        for stored in already:
            self._progress.advance(stored.size)
        begun: list[Future[Damage | None]] = []
        try:
            for stored in missing:
                self._room.enter(stored.size)
                if halt.is_set():
                    self._room.leave(stored.size)
                    break
                begun.append(self._pool.submit(self._one, stored, stored.key in there, halt, stop_at_damage))
        except BaseException:
            halt.set()
            raise
        finally:
            wait(begun)
        ended = [future.result() for future in begun]
        damaged = tuple(damage for damage in ended if damage is not None and damage is not _SKIPPED)
        copied = [stored for stored, damage in zip(missing, ended, strict=False) if damage is None]
        return Copied(len(copied), sum(stored.size for stored in copied), len(already), damaged)

    def _one(self, stored: StoredObject, replaces: bool, halt: threading.Event, stop_at_damage: bool) -> Damage | None:
        try:
            if halt.is_set():
                return _SKIPPED
            damage = self._bring(stored, replaces)
            if damage is not None and stop_at_damage:
                halt.set()
            return damage
        except BaseException:
            halt.set()
            raise
        finally:
            self._room.leave(stored.size)

    def _bring(self, stored: StoredObject, replaces: bool) -> Damage | None:
        try:
            body = streamed_body(self.source.store, stored)
            self.target.put(stored.key, body, if_absent=self._conditional and not replaces)
        except SourceFailed as error:
            if isinstance(error.cause, IntegrityError | ObjectNotFound):
                return Damage(stored, error.cause)
            raise error.cause from error
        self._progress.advance(stored.size)
        return None


_SKIPPED = Damage(StoredObject(key="", size=0, sha256=""), DrError("not begun"))


class _Room:
    """Bytes and objects that may be in flight."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._slots = _AHEAD
        self._changed = threading.Condition()

    def enter(self, size: int) -> None:
        """Waits until there is room; what is larger than all of it waits until it is alone."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._slots > 0 and self._free >= size)
            self._free -= size
            self._slots -= 1

    def leave(self, size: int) -> None:
        with self._changed:
            self._free += min(size, self._size)
            self._slots += 1
            self._changed.notify()
