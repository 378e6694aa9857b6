"""Requests and answers of the Blob service, or of whatever speaks HTTP, as plain values, and a server that hands them
to a function."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_HOPS = {"transfer-encoding", "connection", "keep-alive", "content-length", "date"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    target: str = ""
    """Path and query as they were sent."""

    @property
    def comp(self) -> str:
        return self.query.get("comp", "")

    @property
    def is_of_a_blob(self) -> bool:
        return self.path.count("/") > 2 and "restype" not in self.query


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_well(self) -> bool:
        return self.status < 300

    def having(self, **more: str) -> Answer:
        return replace(self, headers=self.headers | {name.replace("_", "-"): value for name, value in more.items()})


def refused(status: int, code: str) -> Answer:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Answer(status, {"x-ms-error-code": code, "content-type": "application/xml"}, body.encode())


@contextmanager
def serving(answer: Callable[[Request], Answer], now: Callable[[], datetime]) -> Iterator[str]:
    """The endpoint of a server whose answers are those of `answer`, at a time that `now` tells."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # an answer is one packet, or it waits 40 ms for the next

        def serve(self) -> None:
            told = answer(_read(self))
            size = told.headers.get("content-length", "0") if self.command == "HEAD" else str(len(told.body))
            self.send_response_only(told.status)
            for name, value in told.headers.items():
                if name not in _HOPS:
                    self.send_header(name, value)
            self.send_header("Date", format_datetime(now(), usegmt=True))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = serve

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asked may be gone before it is answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _read(handler: BaseHTTPRequestHandler) -> Request:
    url, headers = urlsplit(handler.path), _lower(handler.headers)
    query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    body = handler.rfile.read(int(headers.get("content-length", 0)))
    return Request(handler.command, unquote(url.path), query, headers, body, handler.path)


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
