"""Object stores that speak the real protocols over HTTP on this machine, for the demo and the tests."""

from __future__ import annotations

import secrets
import socket
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.commands import Command, Process, Runner
from dr_pipelines.embedded.postgres import free_port
from dr_pipelines.errors import StoreUnavailable


@dataclass(frozen=True)
class S3Access:
    """What a client needs."""

    endpoint: str
    access_key_id: str
    secret_access_key: str


class EmbeddedS3:
    """`rclone serve s3` over a directory: a bucket is a folder in it. It checks signatures. With `keep_md5` it lists as
    S3 does, by MD5s that it kept when objects were put; else it reads each object that it lists."""

    def __init__(
        self,
        root: Path,
        *,
        access: S3Access | None = None,
        log: Path | None = None,
        clock: Clock | None = None,
        keep_md5: bool = False,
    ) -> None:
        port = free_port()
        self.access = access or S3Access(f"http://127.0.0.1:{port}", "demo", secrets.token_hex(16))
        self._root = root
        self._log = log or root.with_name(f"{root.name}.log")
        self._served = f":hasher,remote='{root}',hashes=md5,max_age=off:" if keep_md5 else str(root)
        self._clock = clock or SystemClock()
        self._process: Process | None = None

    @property
    def port(self) -> int:
        return int(self.access.endpoint.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """Of the server that was started."""
        assert self._process is not None
        return self._process.pid

    def create_bucket(self, name: str) -> None:
        (self._root / name).mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = Runner().start(
                Command(
                    [rclone(), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--etag-hash", "MD5",
                     # Who deletes a file in the folder, to see what a check says of it, does not wait five minutes.
                     "--dir-cache-time", "1s", "--config", "/dev/null",
                     "--cache-dir", str(self._root.with_name(f"{self._root.name}.cache")), self._served],
                    # A list in CSV: without the quotes rclone takes the id and the secret for two keys.
                    secrets={"RCLONE_AUTH_KEY": f'"{self.access.access_key_id},{self.access.secret_access_key}"'},
                ),
                stdout=log,
                stderr=log,
            )  # fmt: skip
        for _ in range(400):
            if self._process.returncode is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            self._clock.wait(0.05)
        raise StoreUnavailable(f"the embedded object store did not start: see {self._log}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def rclone() -> str:
    """The package puts the program beside the interpreter."""
    return str(Path(sysconfig.get_path("scripts")) / "rclone")
