"""Does a store do what a backup needs? Tried on the real one, under a scratch prefix that is removed again.

The promises are those of `tests/contracts`, as far as they are cheap to try over a network. A promise that was seen
broken fails; one that could not be tried (the store is down, the key has no right) is not proven.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import (
    AccessDenied,
    CheckFailed,
    DrError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all, sha256_of
from dr_pipelines.storage.wrappers import Prefixed

SCRATCH = "dr-store-check"
_MIB = 1024 * 1024
_LISTED = 24
_THREADS = 8
_BROKEN = (CheckFailed, IntegrityError, ObjectNotFound, ObjectExists)


def check_store(store: ObjectStore) -> list[CheckResult]:
    """One result a promise, each tried with objects of its own; what a store says it cannot do is said as a fact, and
    passes. Raises nothing that a store can raise."""
    scratch, results = _Scratch(store), list[CheckResult]()
    try:
        for name, attempt in _PROMISES.items():
            results.append(_try(name, attempt, scratch))
    finally:
        cleaned = _try("scratch_is_removed", _clean, scratch)
    return [*results, cleaned]


class _Scratch(Prefixed):
    """A folder of its own, which remembers what may lie in it: a listing can leave something out."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, f"{SCRATCH}/{secrets.token_hex(6)}")
        self.keys: set[str] = set()
        self.is_down = False
        """What is not available after all retries will not be for the next promise: a person waits for the answer."""

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self.keys.add(key)
        return super().put(key, body, if_absent=if_absent, retain_until=retain_until, storage_class=storage_class)


def _try(name: str, attempt: Callable[[_Scratch], str], store: _Scratch) -> CheckResult:
    if store.is_down and attempt is not _clean:
        return not_proven(name, "not tried, for the store does not answer")
    try:
        return passed(name, attempt(store))
    except _BROKEN as error:
        return failed(name, error.message, hint=error.hint)
    except DrError as error:
        store.is_down = isinstance(error, StoreUnavailable)
        return not_proven(name, error.message, hint=error.hint)


def _require(right: bool, wrong: str) -> None:
    if not right:
        raise CheckFailed(wrong)


def _is_absent(store: ObjectStore, key: str) -> bool:
    try:
        store.stat(key)
    except ObjectNotFound:
        return True
    return False


def _put_and_read(store: ObjectStore) -> str:
    data = os.urandom(_MIB)
    store.put("put/object", Body.of(data))
    store.put("put/empty", Body.of(b""))
    _require(store.stat("put/object").size == len(data), "the size of an object is not that of what was put")
    _require(read_all(store, "put/object") == data, "what was read is not what was put")
    _require(read_all(store, "put/empty") == b"", "an empty object is read as something")
    return f"{len(data)} bytes came back as they were put, and none of an empty object"


def _parts(store: ObjectStore) -> str:
    limit = store.capabilities.largest_put
    if limit is None:
        return "every object is put in one piece here"
    chunks = [os.urandom(_MIB)] * (limit // _MIB + 1)
    wanted, size = sha256_of(chunks), len(chunks) * _MIB
    store.put("parts/object", Body(chunks, sha256=wanted, size=size))
    _require(sha256_of(store.open("parts/object")) == wanted, "what was put in parts is not what is read")
    return f"{size} bytes, put in parts, came back as they were put"


def _ranges(store: ObjectStore) -> str:
    data = os.urandom(_MIB)
    store.put("range/object", Body.of(data))
    for offset, length in ((0, 10), (1000, 5000), (_MIB - 10, None), (_MIB - 10, 100), (_MIB, None), (_MIB, 10)):
        found = b"".join(store.open("range/object", offset=offset, length=length))
        wanted = data[offset:] if length is None else data[offset : offset + length]
        _require(found == wanted, f"{length or 'all'} bytes from {offset} on of {_MIB} are not those of the object")
    return "a range gives its bytes and no others, also at the end"


def _listing(store: ObjectStore) -> str:
    # Names that sort otherwise by folder, by locale or by case than by bytes.
    keys = ["b", "a/c", "a.b", "a-b", "B", "a0", *(f"n/{number}" for number in range(_LISTED - 6))]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda key: store.put(f"list/{key}", Body.of(key.encode())), keys))
    found = [(info.key, info.size) for info in store.list("list/")]
    missing = {f"list/{key}" for key in keys} - {key for key, _ in found}
    _require(not missing, f"what was just put is not listed: {', '.join(sorted(missing))}")
    wanted = sorted((f"list/{key}", len(key)) for key in keys)
    _require(found == wanted, f"the listing is not of these objects in key order: {found}")
    within = [(info.key, info.size) for info in store.list("list/n/1")]
    _require(within == [entry for entry in wanted if entry[0].startswith("list/n/1")], f"the prefix n/1 lists {within}")
    return f"{_LISTED} objects that were just put are listed, in key order, by any prefix"


def _absence(store: ObjectStore) -> str:
    _require(_is_absent(store, "absent"), "a key that is not there was found")
    try:
        read_all(store, "absent")
    except ObjectNotFound:
        return "a key that is not there is told as absent"
    raise CheckFailed("a key that is not there was read")


def _no_overwrite(store: ObjectStore) -> str:
    body = Body.of(b"first")
    store.put("taken", body)
    store.put("taken", body)  # the same again is success
    try:
        store.put("taken", Body.of(b"other"))
    except ObjectExists:
        _require(read_all(store, "taken") == b"first", "an object was replaced by a put that was refused")
        return "other content under a key that is taken is refused, the same is well"
    raise CheckFailed(
        "an object was replaced by other content",
        hint="with `profile: generic` a key is looked at before a put; `profile: aws` trusts the service to refuse.",
    )


def _refuses_damage(store: ObjectStore) -> str:
    body = Body([b"damaged on the way"], sha256=Body.of(b"something else").sha256, size=18)
    try:
        store.put("damaged", body)
    except IntegrityError:
        _require(_is_absent(store, "damaged"), "a put that failed left an object")
        return "what does not match its digest is refused, and leaves nothing"
    raise CheckFailed("bytes that do not match their SHA-256 were taken")


def _delete(store: ObjectStore) -> str:
    store.put("deleted", Body.of(b"x"))
    store.delete("deleted")
    _require(_is_absent(store, "deleted"), "a deleted object is still there")
    _require(not list(store.list("deleted")), "a deleted object is still listed")
    store.delete("deleted")
    return "a deleted object is gone, and deleting it again is well"


def _capabilities(store: ObjectStore) -> str:
    can = store.capabilities
    names = ("conditional_put", "confirms_digest", "versioning")
    able = [name for name in names if getattr(can, name)]
    lock = "can lock objects (object_lock)" if can.object_lock else "cannot lock objects"
    return (
        f"{lock}; {_classes(store)}; can: {', '.join(able) or 'only the six verbs'}; "
        "the rest is made up for by reading back"
    )


def _classes(store: ObjectStore) -> str:
    """Tried with one that is not the ordinary one: some take every class and keep none."""
    names = store.capabilities.storage_classes
    if not names:
        return "no storage classes"
    tried = names[min(1, len(names) - 1)]
    try:
        told = store.put("class/object", Body.of(b"x"), storage_class=tried).storage_class
    except StoreError as error:
        if isinstance(error, StoreUnavailable | AccessDenied):
            raise
        told = None
    if {told, *(info.storage_class for info in store.list("class/object"))} != {tried}:
        return "storage classes are taken and not kept: leave `classes` out of this store in the plan"
    return f"storage classes: {', '.join(names)}"


def _clean(scratch: _Scratch) -> str:
    """Removes everything that can be removed before it tells the first thing that could not."""
    told = _delete_all(scratch, scratch.keys)
    if not any(isinstance(error, StoreUnavailable) for error in told):
        told += _delete_all(scratch, [info.key for info in scratch.list()])
    if told:
        raise told[0]
    left = [info.key for info in scratch.list()]
    _require(not left, f"{len(left)} scratch objects are still there: {', '.join(left[:3])}")
    kept = "; its old versions stay until the bucket's own rules remove them" if scratch.capabilities.versioning else ""
    return f"every scratch object was removed again{kept}"


def _delete_all(store: ObjectStore, keys: Iterable[str]) -> list[DrError]:
    told: list[DrError] = []
    for key in keys:
        try:
            store.delete(key)
        except StoreUnavailable as error:
            return [*told, error]
        except DrError as error:
            told.append(error)
    return told


_PROMISES: dict[str, Callable[[_Scratch], str]] = {
    "put_is_read_back": _put_and_read,
    "parts_are_put_together": _parts,
    "ranges_are_exact": _ranges,
    "listing_is_whole": _listing,
    "absence_is_told": _absence,
    "content_is_not_replaced": _no_overwrite,
    "damage_is_refused": _refuses_damage,
    "delete_removes": _delete,
    "capabilities": _capabilities,
}
