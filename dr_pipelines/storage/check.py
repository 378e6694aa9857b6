"""Does a store do what a backup needs? Tried on the real one, under a scratch prefix that is removed again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, ObjectExists, ObjectNotFound
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.wrappers import Prefixed

SCRATCH = "dr-store-check"
_SIZE = 1024 * 1024


def check_store(store: ObjectStore) -> list[CheckResult]:
    """One result a promise; what a store says it cannot do is said as a fact, and passes."""
    scratch = Prefixed(store, f"{SCRATCH}/{secrets.token_hex(6)}")
    body = Body.of(os.urandom(_SIZE))
    tries: dict[str, Callable[[ObjectStore, Body], str]] = {
        "put_is_read_back": _put_and_read,
        "ranges_are_exact": _range,
        "listing_is_whole": _list,
        "absence_is_told": _absence,
        "content_is_not_replaced": _no_overwrite,
        "delete_removes": _delete,
    }
    try:
        results = [_try(name, attempt, scratch, body) for name, attempt in tries.items()]
    finally:
        _clean(scratch)
    able = [name for name in ("conditional_put", "confirms_digest", "object_lock") if getattr(store.capabilities, name)]
    facts = f"can: {', '.join(able) or 'only the six verbs'}; what it cannot is made up for by reading back"
    return [*results, passed("capabilities", facts, capabilities=able)]


def _try(name: str, attempt: Callable[[ObjectStore, Body], str], store: ObjectStore, body: Body) -> CheckResult:
    try:
        return passed(name, attempt(store, body))
    except AssertionError as error:
        return failed(name, str(error))
    except DrError as error:
        return not_proven(name, error.message)


def _require(right: bool, wrong: str) -> None:
    if not right:
        raise AssertionError(wrong)


def _put_and_read(store: ObjectStore, body: Body) -> str:
    store.put("a/object", body)
    _require(read_all(store, "a/object") == body.chunks[0], "what was read is not what was put")
    return f"{body.size} bytes came back as they were put"


def _range(store: ObjectStore, body: Body) -> str:
    found = b"".join(store.open("a/object", offset=1000, length=5000))
    _require(found == bytes(body.chunks[0])[1000:6000], "a range gave other bytes")
    return "a range gives its bytes and no others"


def _list(store: ObjectStore, body: Body) -> str:
    for number in range(3):
        store.put(f"a/list/{number}", Body.of(b"%d" % number))
    keys = [info.key for info in store.list("a/list/")]
    _require(keys == ["a/list/0", "a/list/1", "a/list/2"], f"three objects were put, the listing says {keys}")
    return "what was just put is listed, in order"


def _absence(store: ObjectStore, body: Body) -> str:
    try:
        store.stat("a/nothing")
    except ObjectNotFound:
        return "a key that is not there is told as absent"
    raise AssertionError("a key that is not there was found")


def _no_overwrite(store: ObjectStore, body: Body) -> str:
    store.put("a/object", body)  # the same again is success
    try:
        store.put("a/object", Body.of(b"other"))
    except ObjectExists:
        return "other content under a key that is taken is refused"
    raise AssertionError("an object was replaced")


def _delete(store: ObjectStore, body: Body) -> str:
    store.delete("a/object")
    store.delete("a/object")
    try:
        store.stat("a/object")
    except ObjectNotFound:
        return "a deleted object is gone, and deleting it again is well"
    raise AssertionError("a deleted object is still there")


def _clean(store: ObjectStore) -> None:
    for info in list(store.list()):
        store.delete(info.key)
