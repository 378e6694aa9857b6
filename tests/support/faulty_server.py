"""A server over a real socket that does one wrong thing, to every connection; a proxy that breaks one connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The endpoint of a server that hands each connection, its request read, to `answer` and then closes it."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
            request += more
        answer(connection)

    with _listening(serve) as endpoint:
        yield endpoint


@contextmanager
def cutting_once(port: int, *, after: int, answers: bool = False) -> Iterator[str]:
    """The endpoint of a proxy before the server on `port`. Once, when clients have sent `after` bytes (or, with
    `answers`, were sent them), it breaks the connection that the last of them came by; everything later goes through.
    """
    left, lock = [after], threading.Lock()

    def is_cut(count: int) -> bool:
        with lock:
            before, left[0] = left[0], left[0] - count
        return before > 0 >= left[0]

    def copy(source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not (counted and is_cut(len(data))):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def relay(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=copy, args=(server, client, answers), daemon=True)
            back.start()
            copy(client, server, not answers)
            back.join()

    with _listening(relay) as endpoint:
        yield endpoint
        assert left[0] <= 0, "nothing was cut: the test tries nothing"


def replying(*answers: bytes) -> Callable[[socket.socket], None]:
    """Each request gets the next answer; the last one is repeated."""
    left = list(answers)

    def reply(connection: socket.socket) -> None:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return reply


def response(status: str, body: bytes = b"", *, size: int | None = None, **headers: str) -> bytes:
    """`size` is what the header says, where that is not the truth; `_` in the names of `headers` is a dash."""
    length = len(body) if size is None else size
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    return head.encode() + body


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_with, args=(connection, serve), daemon=True).start()


def _with(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, suppress(OSError):
        serve(connection)
