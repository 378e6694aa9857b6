"""Text in HTTP headers, which carry ASCII: user metadata in Unicode goes as a word of RFC 2047, as S3 itself gives it.

Source: S3 User Guide, "Working with object metadata". Azure and other services of the S3 protocol keep such a word as
it is. Only words as we write them are read as Unicode; others stay as they came, so that every value that a service
gave goes back as it was.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import fields

from dr_pipelines.storage.bucket import ObjectHeaders

_PLAIN = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_WORD = re.compile(r"=\?UTF-8\?B\?([A-Za-z0-9+/=]+)\?=")
TEXTS = tuple(field.name for field in fields(ObjectHeaders) if field.name != "metadata")


def is_plain(text: str) -> bool:
    """Can it be the value of a header as it is?"""
    return _PLAIN.fullmatch(text) is not None


def to_header(text: str) -> str:
    if is_plain(text):
        return text
    return f"=?UTF-8?B?{b64encode(text.encode('utf-8', 'surrogateescape')).decode()}?="


def from_header(value: str) -> str:
    if word := _WORD.fullmatch(value):
        try:
            text = b64decode(word[1], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return value
        return text if to_header(text) == value else value
    return raw(value)


def raw(value: str) -> str:
    """Some services send bytes as they are; HTTP clients take them for Latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def unfit(headers: ObjectHeaders, name: re.Pattern[str]) -> tuple[str, ...]:
    """What cannot be sent as a header; names of metadata must match `name`."""
    texts = [text for text in TEXTS if not is_plain(getattr(headers, text) or "")]
    return (*texts, *(f"metadata.{key}" for key in headers.metadata if name.fullmatch(key) is None))
