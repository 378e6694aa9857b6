"""Small JSON objects that carry their own SHA-256: nothing else names a digest of them, and a flipped bit in one must
not pass for another truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dr_pipelines.errors import IntegrityError


def seal(fields: Mapping[str, Any]) -> bytes:
    """As JSON with `sha256` over the rest of it. `fields` are plain JSON values."""
    return _written({**fields, "sha256": _digest(fields)})


def unseal(data: bytes) -> dict[str, Any]:
    """The fields without the digest. Raises `IntegrityError` when they do not match it, or it is no JSON."""
    try:
        fields: dict[str, Any] = json.loads(data)
        told = fields.pop("sha256", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise IntegrityError("no JSON object") from error
    if told != _digest(fields):
        raise IntegrityError("does not match its own SHA-256")
    return fields


def is_as_sealed(data: bytes) -> bool:
    """Byte for byte as `seal` writes it: blanks are in no digest. `data` can be unsealed."""
    return _written(json.loads(data)) == data


def _written(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"


def _digest(fields: Mapping[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
