"""What a key may look like, the same for every store."""

from __future__ import annotations

import re

from dr_pipelines.errors import UsageError

_KEY = re.compile(r"\A[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\Z")


def checked(key: str) -> str:
    """The key itself. Raises `UsageError` for one that a store could misread."""
    if _KEY.match(key) is None or any(part in (".", "..") for part in key.split("/")) or len(key) > 1000:
        raise UsageError(f"not a key: {key!r}", hint="keys are relative, of letters, digits and _ . - between slashes.")
    return key
