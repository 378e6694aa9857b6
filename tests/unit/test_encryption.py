"""age files of our own against an independent reader and writer of the format."""

from __future__ import annotations

import pytest

from dr_pipelines.errors import DrError, IntegrityError, KeyUnusable
from dr_pipelines.repository.encryption import CHUNK, Decryptor, decrypt, encrypt, generate_identity

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


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 40 * CHUNK + 7])
@pytest.mark.parametrize("piece", [1, CHUNK, 5 * CHUNK, 1 << 30])
def test_it_is_read_in_pieces_of_any_size(size: int, piece: int) -> None:
    identity, data = generate_identity(), bytes(range(251)) * (size // 251 + 1)
    decryptor = Decryptor(encrypt(data[:size], [identity.recipient]), [identity])
    pieces = [bytes(found) for found in iter(lambda: decryptor.read(piece), b"")]
    assert b"".join(pieces) == data[:size]
    assert all(len(found) <= max(piece, CHUNK) for found in pieces)


def test_each_recipient_reads_and_nobody_else() -> None:
    first, second, other = (generate_identity() for _ in range(3))
    sealed = encrypt(b"for two", [first.recipient, second.recipient])
    assert decrypt(sealed, [other, second]) == decrypt(sealed, [first]) == b"for two"
    with pytest.raises(KeyUnusable):
        decrypt(sealed, [other])


@pytest.mark.parametrize("kept", [1, 2])
def test_a_file_cut_between_its_chunks_is_noticed(kept: int) -> None:
    identity = generate_identity()
    sealed = encrypt(bytes(3 * CHUNK), [identity.recipient])
    payload = len(sealed) - 3 * (CHUNK + 16)
    for cut in (sealed[: payload + kept * (CHUNK + 16)], sealed[:payload], sealed[:100], b""):
        with pytest.raises(IntegrityError):
            decrypt(cut, [identity])


def test_chunks_that_changed_places_are_noticed() -> None:
    identity = generate_identity()
    sealed = encrypt(bytes(range(256)) * (3 * CHUNK // 256), [identity.recipient])
    payload = len(sealed) - 3 * (CHUNK + 16)
    chunks = [sealed[payload + n * (CHUNK + 16) : payload + (n + 1) * (CHUNK + 16)] for n in range(3)]
    with pytest.raises(IntegrityError):
        decrypt(sealed[:payload] + chunks[1] + chunks[0] + chunks[2], [identity])
