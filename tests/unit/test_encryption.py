"""age files of our own against an independent reader and writer of the format."""

from __future__ import annotations

import pytest

from dr_pipelines.errors import DrError, KeyUnusable
from dr_pipelines.repository.encryption import decrypt, encrypt, generate_identity

pyrage = pytest.importorskip("pyrage")
_SIZES = [0, 1, 65535, 65536, 65537, 10_000_000]


@pytest.mark.parametrize("size", _SIZES)
def test_pyrage_reads_what_we_wrote(size: int) -> None:
    identity, data = generate_identity(), bytes(range(256)) * (size // 256 + 1)
    sealed = bytes(encrypt(data[:size], [identity.recipient]))
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(identity.reveal())]) == data[:size]


@pytest.mark.parametrize("size", _SIZES)
def test_we_read_what_pyrage_wrote(size: int) -> None:
    identity, data = generate_identity(), bytes(range(256)) * (size // 256 + 1)
    sealed = pyrage.encrypt(data[:size], [pyrage.x25519.Recipient.from_str(str(identity.recipient))])
    assert decrypt(sealed, [identity]) == data[:size]


def test_a_wrong_identity_is_told() -> None:
    sealed = encrypt(b"data", [generate_identity().recipient])
    with pytest.raises(KeyUnusable):
        decrypt(sealed, [generate_identity()])


def test_every_flipped_byte_is_noticed() -> None:
    identity = generate_identity()
    sealed = bytes(encrypt(b"some data", [identity.recipient]))
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(DrError):
            decrypt(bytes(damaged), [identity])
