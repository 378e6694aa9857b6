"""How objects are encoded: zstd, then age where there are recipients. Encoded bytes say themselves what they are.

Packs are encoded by `archive_writer`, in pieces; here is what fits in memory whole.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zstandard

from dr_pipelines.errors import IntegrityError
from dr_pipelines.repository.encryption import (
    Buffer,
    Encryptor,
    Identity,
    Recipient,
    decrypt,
    encrypt,
    is_encrypted,
    sealed_bound,
)

if TYPE_CHECKING:  # who only encodes needs no manifests
    from dr_pipelines.repository.manifest import Encoding

FRAME_SIZE = 4 * 1024 * 1024
"""Raw bytes of a zstd frame: packs are read in such pieces."""


class Codec:
    """`recipients` (`age1…`) are who can read what is written; `identities` (`AGE-SECRET-KEY-1…`) read. A machine
    that only takes backups has no identities. Safe to use from several threads."""

    def __init__(self, level: int = 1, recipients: Sequence[str] = (), identities: Sequence[str] = ()) -> None:
        self.level = level
        self.recipients = tuple(Recipient.parse(text) for text in recipients)
        self.identities = tuple(Identity.parse(text) for text in identities)
        self._of_thread = threading.local()

    @property
    def encoding(self) -> Encoding:
        from dr_pipelines.repository.manifest import Encoding

        return Encoding(level=self.level, recipients=tuple(str(recipient) for recipient in self.recipients))

    @property
    def suffix(self) -> str:
        return self.encoding.suffix

    @property
    def can_decrypt(self) -> bool:
        """Whether what this codec writes can be read back with it."""
        return not self.recipients or bool(self.identities)

    def encode(self, data: Buffer) -> bytes:
        packed = self.compress(data)
        return encrypt(packed, self.recipients) if self.recipients else packed

    def decode(self, data: Buffer) -> bytes:
        """Raises `KeyUnusable` without a fitting identity, `IntegrityError` when the bytes are damaged."""
        plain = decrypt(data, self.identities) if is_encrypted(data) else data
        try:
            return zstandard.ZstdDecompressor().decompress(plain, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"an object does not decompress: {error}") from error

    def compress(self, data: Buffer) -> bytes:
        """One zstd frame with its content's size and checksum."""
        compressor = getattr(self._of_thread, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=self.level, write_checksum=True, write_content_size=True)
            self._of_thread.compressor = compressor
        return bytes(compressor.compress(data))

    def encoded_bound(self, size: int, frames: int) -> int:
        """At most so many bytes do `size` raw bytes in `frames` frames become."""
        compressed = size + (size >> 8) + 1024 * frames
        return sealed_bound(compressed, len(self.recipients)) if self.recipients else compressed

    def sink(self, out: Buffer) -> Encryptor | PlainSink:
        """Where the compressed frames of one pack go."""
        return Encryptor(self.recipients, out) if self.recipients else PlainSink(out)


class PlainSink:
    """What `Encryptor` is, where nothing is encrypted."""

    def __init__(self, out: Buffer) -> None:
        self._out = memoryview(out)
        self.position = 0

    def update(self, data: Buffer) -> None:
        end = self.position + len(data)
        self._out[self.position : end] = data
        self.position = end

    def finish(self) -> int:
        return self.position
