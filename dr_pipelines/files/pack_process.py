"""A builder of packs in a process of its own, so that reading many small files is not bound to one interpreter. It
gets its questions over a pipe and puts the packs into memory that both have; it ends with the pipe, whoever closes it.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from dr_pipelines.commands import Command, Process, Runner
from dr_pipelines.errors import CommandFailed
from dr_pipelines.files.pack_builder import Outcome, PackBuilder, Sealed, encoded_size
from dr_pipelines.files.source import Wanted
from dr_pipelines.files.tree import Tree
from dr_pipelines.repository.buffers import give_back_freed_memory
from dr_pipelines.repository.codec import Codec

_READY = "ready"
_START = 30.0
"""Seconds within which it begins, or is done without."""


class PackProcess:
    """The `Builder` of files below `tree`. `close` it: the process ends."""

    def __init__(self, tree: Tree, codec: Codec) -> None:
        """Raises `OSError`, `CommandFailed` where this system lets no such process begin."""
        self.end = 0
        self._found: list[Outcome] = []
        size = -(-encoded_size(codec) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._settings = tree, size, codec.level, [str(one) for one in codec.recipients]
        with ExitStack() as opened:
            memory = os.memfd_create("packs")
            opened.callback(os.close, memory)
            self._pipe, theirs = Pipe()
            opened.enter_context(theirs)
            os.truncate(memory, 2 * size)
            self.buffers: Sequence[memoryview] = _buffers(memory, size)
            self._process = _start(memory, theirs.fileno())

    def ready(self) -> bool:
        """What is run as `sys.executable` may be no Python, or one that has no such module."""
        self._send(self._settings)
        try:
            return self._pipe.poll(_START) and self._answer() == _READY
        except CommandFailed:
            return False

    def close(self) -> None:
        self._pipe.close()
        self._process.stop()

    def read(self, files: Sequence[Wanted], sampled: int) -> list[Outcome]:
        self._send(("read", [(one.row, one.path, one.size, one.mtime_ns) for one in files], sampled))
        self._found = self._answer()
        return self._found

    def keep(self, places: Sequence[int]) -> None:
        """It is not waited for: what goes wrong there the next answer tells."""
        self.end += sum(self._found[place].taken for place in places)
        self._send(("keep", places))

    def seal(self) -> Sealed:
        self._send(("seal",))
        self.end = 0
        return Sealed(*self._answer())

    def _send(self, question: Any) -> None:
        with suppress(ConnectionError):  # it has ended: why, its last answer says
            self._pipe.send(question)

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ended(self) -> CommandFailed:
        return CommandFailed(
            f"a process that reads files was ended (exit code {self._process.wait(1)})",
            hint="was it out of memory? Take the snapshot again: it goes on from what is stored.",
        )


def _start(memory: int, pipe: int) -> Process:
    """It finds modules where this process does: what is installed for it need not be installed for everyone."""
    argv = [sys.executable, "-P", "-m", __name__, str(memory), str(pipe)]
    found = os.pathsep.join(str(Path(one).absolute()) for one in sys.path)
    return Runner().start(Command(argv, env={"PYTHONPATH": found}), stderr=2, descriptors=(memory, pipe))


def _buffers(memory: int, size: int) -> tuple[memoryview, memoryview]:
    first, second = (memoryview(mmap.mmap(memory, size, offset=start)) for start in (0, size))
    return first, second


def _serve(pipe: Connection, memory: int) -> None:
    give_back_freed_memory()
    tree, size, level, recipients = pipe.recv()
    builder = PackBuilder(tree, Codec(level, recipients), _buffers(memory, size))
    pipe.send(_READY)
    while True:
        what, *told = pipe.recv()
        if what == "read":
            pipe.send(_outcomes(builder, *told))
        elif what == "keep":
            builder.keep(*told)
        else:
            pipe.send(tuple(builder.seal()))


def _outcomes(builder: PackBuilder, files: Sequence[tuple[int, bytes, int, int | None]], sampled: int) -> list[Outcome]:
    return builder.read([Wanted(*file) for file in files], sampled)


def main(memory: int, descriptor: int) -> None:
    with Connection(descriptor) as pipe:
        try:
            _serve(pipe, memory)
        except (EOFError, ConnectionError):  # who asks has what it wanted, or is no more
            pass
        except Exception as error:  # noqa: BLE001  who asks raises it
            pipe.send(error)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
