"""age v1 with X25519 recipients, written on `cryptography`: the same bytes as the `age` program, at memory speed.

Source: https://age-encryption.org/v1. A file is a header (the file key, wrapped for each recipient, and a MAC),
a nonce of 16 bytes, and the payload in chunks of 64 KiB, each sealed by ChaCha20-Poly1305 with a counter as
its nonce; the last chunk is marked. Passphrases, SSH keys and plugins do not belong here.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dr_pipelines.errors import IntegrityError, KeyUnusable

MAGIC = b"age-encryption.org/v1"
CHUNK = 64 * 1024
_TAG = 16
_SEALED = CHUNK + _TAG
_NONCE = 16
_PIECE = 16 * CHUNK
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Recipient:
    """A public key: who holds it can write, and not read."""

    public: bytes

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Raises `KeyUnusable` when it is not an `age1…` recipient."""
        return cls(_bech32_decode(text.strip(), "age", "recipient"))

    def __str__(self) -> str:
        return _bech32_encode("age", self.public)


@dataclass(frozen=True)
class Identity:
    """A private key. Its `repr` and `str` do not show it; `reveal` does."""

    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The key alone, or an identity file as `age-keygen` writes it (comments are skipped)."""
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if len(lines) != 1:
            raise KeyUnusable(
                f"an identity is one line, here are {len(lines)}", hint="make one with `dr key new` or `age-keygen`."
            )
        return cls(_bech32_decode(lines[0], "AGE-SECRET-KEY-", "identity"))

    @property
    def recipient(self) -> Recipient:
        return Recipient(X25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw())

    def reveal(self) -> str:
        return _bech32_encode("age-secret-key-", self.secret).upper()

    def __str__(self) -> str:
        return f"identity of {self.recipient}"


def generate_identity() -> Identity:
    return Identity(X25519PrivateKey.generate().private_bytes_raw())


def sealed_bound(size: int, recipients: int) -> int:
    """At most so many bytes does an age file of `size` plain bytes take."""
    return 256 + 128 * recipients + size + _TAG * (size // CHUNK + 1)


class Encryptor:
    """Writes one age file into `out`, a reused buffer of at least `sealed_bound` bytes.

    `update` takes plain bytes in pieces of any size; chunks run on across pieces. After `finish`, the file is
    `out[:position]`. Bytes below `position` are final at any time.
    """

    def __init__(self, recipients: Sequence[Recipient], out: Buffer) -> None:
        file_key = os.urandom(16)
        nonce = os.urandom(_NONCE)
        head = _header(recipients, file_key) + nonce
        self._out = memoryview(out)
        self._out[: len(head)] = head
        self.position = len(head)
        self._cipher = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
        self._counter = 0
        # The last chunk carries a mark and must not be empty, so a full chunk waits here until more comes.
        self._held = bytearray(CHUNK)
        self._held_size = 0

    def update(self, data: Buffer) -> None:
        view = memoryview(data)
        size, at = len(view), 0
        if self._held_size:
            at = min(CHUNK - self._held_size, size)
            self._hold(view[:at])
            if at == size:
                return
            self._seal(self._held, last=False)
            self._held_size = 0
        at = self._seal_whole_chunks(view, at)
        self._hold(view[at:])

    def finish(self) -> int:
        """Seals the last chunk; returns the file's size."""
        self._seal(memoryview(self._held)[: self._held_size], last=True)
        return self.position

    def _hold(self, piece: memoryview) -> None:
        self._held[self._held_size : self._held_size + len(piece)] = piece
        self._held_size += len(piece)

    def _seal(self, chunk: Buffer, *, last: bool) -> None:
        end = self.position + len(chunk) + _TAG
        nonce = (self._counter << 8 | last).to_bytes(12, "big")
        self._cipher.encrypt_into(nonce, chunk, None, self._out[self.position : end])
        self._counter += 1
        self.position = end

    def _seal_whole_chunks(self, view: memoryview, at: int) -> int:
        """The hot loop: straight from the caller's buffer into `out`."""
        seal, out, position, counter = self._cipher.encrypt_into, self._out, self.position, self._counter
        last_start = len(view) - CHUNK
        while at < last_start:
            nonce = (counter << 8).to_bytes(12, "big")
            seal(nonce, view[at : at + CHUNK], None, out[position : position + _SEALED])
            at += CHUNK
            position += _SEALED
            counter += 1
        self.position, self._counter = position, counter
        return at


def encrypt(data: Buffer, recipients: Sequence[Recipient]) -> bytes:
    """One small object whole."""
    out = bytearray(sealed_bound(len(data), len(recipients)))
    encryptor = Encryptor(recipients, out)
    encryptor.update(data)
    return bytes(memoryview(out)[: encryptor.finish()])


class Decryptor:
    """Reads one age file, `data`, in pieces. Raises `KeyUnusable` when no identity fits."""

    def __init__(self, data: Buffer, identities: Sequence[Identity]) -> None:
        view = memoryview(data)
        file_key, start = _open_header(view, identities)
        payload = start + _NONCE
        if len(view) < payload + _TAG:
            raise IntegrityError("an encrypted object is cut short in its header")
        self._cipher = ChaCha20Poly1305(_hkdf(file_key, bytes(view[start:payload]), b"payload"))
        self._sealed = view[payload:]
        self._counter = 0
        self._out = memoryview(bytearray(min(_PIECE, max(len(view), CHUNK))))
        self._ended = False

    def read(self, size: int = _PIECE) -> memoryview:
        """The next plain bytes, at least a chunk of 64 KiB and about `size`; none at the end. The view is valid until
        the next call. Raises `IntegrityError` when the bytes were changed or cut."""
        position = 0
        try:
            while not self._ended and position + CHUNK <= min(max(size, CHUNK), len(self._out)):
                position += self._open_chunk(self._out[position:])
        except InvalidTag:
            raise IntegrityError("an encrypted object was changed or cut: a chunk does not authenticate") from None
        return self._out[:position]

    def _open_chunk(self, out: memoryview) -> int:
        self._ended = len(self._sealed) <= _SEALED
        sealed, self._sealed = self._sealed[:_SEALED], self._sealed[_SEALED:]
        size = len(sealed) - _TAG
        if size < 0 or (size == 0 and self._counter > 0):
            raise IntegrityError("an encrypted object is cut short")
        nonce = (self._counter << 8 | self._ended).to_bytes(12, "big")
        self._counter += 1
        self._cipher.decrypt_into(nonce, sealed, None, out[:size])
        return size


def decrypt(data: Buffer, identities: Sequence[Identity]) -> bytes:
    """One small object whole; raises like `Decryptor`."""
    decryptor = Decryptor(data, identities)
    return b"".join(bytes(piece) for piece in iter(decryptor.read, b""))


def is_encrypted(data: Buffer) -> bool:
    return bytes(memoryview(data)[: len(MAGIC)]) == MAGIC


def stanzas(data: Buffer) -> list[str]:
    """The kind of each recipient in a file's header (`X25519`), from its first bytes. Who that is cannot be seen.
    Raises `IntegrityError` when no whole header is there."""
    head, end, _ = _header_end(memoryview(data))
    return [line.split(b" ")[1].decode(errors="replace") for line in head[:end].split(b"\n") if line.startswith(b"-> ")]


def opens(data: Buffer, identities: Sequence[Identity]) -> bool:
    """Whether one of the identities decrypts a file, from its first bytes. Raises `IntegrityError`."""
    try:
        return bool(_open_header(memoryview(data), identities))
    except KeyUnusable:
        return False


# --- header -------------------------------------------------------------------------------------------------


def _header(recipients: Sequence[Recipient], file_key: bytes) -> bytes:
    lines = [MAGIC]
    for recipient in recipients:
        lines += _wrap(recipient, file_key)
    signed = b"\n".join([*lines, b"---"])
    return signed + b" " + _b64(_header_mac(file_key, signed)) + b"\n"


def _wrap(recipient: Recipient, file_key: bytes) -> tuple[bytes, bytes]:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient.public))
    body = _wrapping(shared, share, recipient.public).encrypt(bytes(12), file_key, None)
    return b"-> X25519 " + _b64(share), _b64(body)


def _wrapping(shared: bytes, share: bytes, public: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_hkdf(shared, share + public, MAGIC + b"/X25519"))


def _header_end(view: memoryview) -> tuple[bytes, int, int]:
    """The first bytes, where the line of the MAC begins in them, and where it ends."""
    head = bytes(view[: 64 * 1024])
    end = head.find(b"\n--- ")
    stop = head.find(b"\n", end + 5)
    if not head.startswith(MAGIC + b"\n") or end < 0 or stop < 0:
        raise IntegrityError("this is not an age file, or its header is cut short")
    return head, end, stop


def _open_header(view: memoryview, identities: Sequence[Identity]) -> tuple[bytes, int]:
    """The file key and where the header ends."""
    head, end, stop = _header_end(view)
    signed, mac = head[: end + 4], head[end + 5 : stop]
    for share, body in _stanzas(head[len(MAGIC) + 1 : end].split(b"\n")):
        for identity in identities:
            file_key = _unwrap(identity, share, body)
            if file_key is None:
                continue
            if not hmac.compare_digest(_b64(_header_mac(file_key, signed)), mac):
                raise IntegrityError("the header of an encrypted object was changed")
            return file_key, stop + 1
    raise KeyUnusable(
        "no identity at hand decrypts this object"
        if identities
        else "this object is encrypted and no identity is given",
        hint="give the identity of one of the recipients that `dr repository show LABEL` lists "
        "(encryption.identity in the plan, or --identity FILE).",
    )


def _stanzas(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Share and body of each X25519 stanza; others are skipped."""
    arguments: list[bytes] = []
    body = b""
    for line in lines:
        if line.startswith(b"-> "):
            arguments, body = line[3:].split(b" "), b""
            continue
        body += line
        if len(line) < 64 and arguments[:1] == [b"X25519"] and len(arguments) == 2:
            yield _unb64(arguments[1]), _unb64(body)


def _unwrap(identity: Identity, share: bytes, body: bytes) -> bytes | None:
    if len(share) != 32 or len(body) != 32:
        raise IntegrityError("the header of an encrypted object is malformed")
    private = X25519PrivateKey.from_private_bytes(identity.secret)
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(share))
        return _wrapping(shared, share, identity.recipient.public).decrypt(bytes(12), body, None)
    except (InvalidTag, ValueError):
        return None


def _header_mac(file_key: bytes, signed: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, None, b"header"), signed, "sha256")


def _hkdf(key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key)


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise IntegrityError("the header of an encrypted object is malformed") from error


# --- keys as text: Bech32 (BIP 173) -------------------------------------------------------------------------


def _bech32_checksum(prefix: str, values: list[int]) -> int:
    check = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                check ^= generator
    return check


def _bech32_encode(prefix: str, data: bytes) -> str:
    bits = len(data) * 8
    padding = -bits % 5
    number = int.from_bytes(data, "big") << padding
    values = [number >> shift & 31 for shift in range(bits + padding - 5, -1, -5)]
    check = _bech32_checksum(prefix, values + [0] * 6) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(_BECH32[value] for value in values)


def _bech32_decode(text: str, prefix: str, what: str) -> bytes:
    wrong = KeyUnusable(
        f"this is not an age {what} (expected {prefix}1…)", hint="make a pair with `dr key new` and copy it whole."
    )
    head, _, tail = text.lower().rpartition("1")
    if text not in (text.lower(), text.upper()) or head != prefix.lower() or any(c not in _BECH32 for c in tail):
        raise wrong
    values = [_BECH32.index(c) for c in tail]
    if len(values) != 52 + 6 or _bech32_checksum(head, values) != 1:
        raise wrong
    number = 0
    for value in values[:-6]:
        number = number << 5 | value
    if number & 0xF:  # 52 * 5 bits hold 32 bytes and four bits of padding
        raise wrong
    return (number >> 4).to_bytes(32, "big")
