"""Where stores are, as the plan writes it: addresses, names of buckets, prefixes. Nothing here opens a connection."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PART = re.compile(r"[A-Za-z0-9_.-]+")
BUCKET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{2,254}$"
"""Of S3 and of Azure's containers; a folder in it is a prefix."""


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port or a bracket
        right = False
    if not right or re.search(r"\s", value):
        raise ValueError("not an address; write it like https://s3.example.com")
    return value


def _prefix(value: str) -> str:
    parts = value.strip("/").split("/") if value.strip("/") else []
    if any(_PART.fullmatch(part) is None or part in (".", "..") for part in parts) or len(value) > 500:
        raise ValueError("not a prefix; write folders of letters, digits and _ . - between slashes")
    return value


Address = Annotated[str, AfterValidator(_address)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Bucket = Annotated[str, Field(pattern=BUCKET_PATTERN)]


def same_address(address: str) -> str:
    """One text for all ways to write an address. The scheme is not in it: who serves one bucket by both serves one."""
    parts = urlsplit(address)
    host = (parts.hostname or "").rstrip(".")
    return f"{host}{_port(parts)}{parts.path.rstrip('/')}"


def _port(parts: SplitResult) -> str:
    return "" if parts.port in (None, *_DEFAULT_PORTS.values()) else f":{parts.port}"
