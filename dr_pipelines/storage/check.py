"""Does a store keep its promises? Tried with scratch objects under `dr-store-check/<nonce>/`, removed at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, ObjectExists, ObjectNotFound
from dr_pipelines.storage.base import Body, ObjectStore, read_all

_DATA = bytes(range(256)) * 16


def check_store(store: ObjectStore) -> list[CheckResult]:
    """Put, read, range, stat, list, conditional put and delete. A store's error fails the promise it broke."""
    prefix = f"dr-store-check/{secrets.token_hex(8)}/"
    key = prefix + "object"
    results = [_tried(store, "object_is_put", lambda: store.put(key, Body.of(_DATA)).size == len(_DATA))]
    if results[0].passed:
        results += [
            _tried(store, "object_is_read", lambda: read_all(store, key) == _DATA),
            _tried(store, "range_is_read", lambda: b"".join(store.open(key, offset=100, length=50)) == _DATA[100:150]),
            _tried(store, "object_is_sized", lambda: store.stat(key).size == len(_DATA)),
            _tried(store, "object_is_listed", lambda: [found.key for found in store.list(prefix)] == [key]),
            _conditional(store, key),
        ]
    # Also after a failed put: an object may be there that was never confirmed.
    results.append(_tried(store, "object_is_deleted", lambda: _deleted(store, key)))
    return results


def _tried(store: ObjectStore, name: str, kept: Callable[[], bool]) -> CheckResult:
    try:
        right = kept()
    except DrError as error:
        return failed(name, f"{store.name}: {error.message}")
    return passed(name, f"{store.name} does it") if right else failed(name, f"{store.name} answered something else")


def _conditional(store: ObjectStore, key: str) -> CheckResult:
    name = "put_is_conditional"
    if not store.capabilities.conditional_put:
        return not_proven(name, f"{store.name} does not promise it; keys are unique without it")
    return _tried(store, name, lambda: _refused(store, key))


def _refused(store: ObjectStore, key: str) -> bool:
    try:
        store.put(key, Body.of(b"other"))
    except ObjectExists:
        return True
    return False


def _deleted(store: ObjectStore, key: str) -> bool:
    store.delete(key)
    try:
        store.stat(key)
    except ObjectNotFound:
        return True
    return False
