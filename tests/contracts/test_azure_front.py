"""Azure's own behaviour, which Azurite lacks: see `tests/support/azure_front.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import ContainerClient, StandardBlobTier

from dr_pipelines.errors import ObjectLocked, ObjectNotFound, ObjectOffline, StoreError, UsageError
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.azure_locks import LockMode
from dr_pipelines.storage.base import Availability, Body, ObjectStore, read_all, sha256_of
from dr_pipelines.storage.wrappers import Prefixed
from tests.contracts.object_store import ObjectStoreContract
from tests.contracts.test_object_locks import UNTIL, ObjectLockContract
from tests.support.azure_front import AzureFront, Manners, azure_front
from tests.support.stores import MIB, azurite_container


@dataclass
class Served:
    front: AzureFront
    container: ContainerClient
    store: AzureStore


Serve = Callable[..., Served]


@pytest.fixture
def serve(azurite_port: int) -> Iterator[Serve]:
    """`serve(lock="governance", deletes_hide=True, …)`: a store on a new container behind a front of its own."""
    with ExitStack() as stack:

        def served(lock: LockMode | None = "compliance", **manners: bool) -> Served:
            front = stack.enter_context(azure_front(azurite_port, Manners(**manners)))
            container = azurite_container(front.endpoint)
            return Served(front, container, AzureStore(container, "tier", lock=lock, block_size=MIB, page_size=3))

        yield served


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, serve: Serve) -> ObjectStore:
        return serve().store


class TestLocks(ObjectLockContract):
    @pytest.fixture
    def store(self, serve: Serve) -> ObjectStore:
        return serve().store


_X = Body.of(b"x")
_LARGE = Body.of(bytes(range(251)) * 9000)


def test_a_container_says_whether_it_can_lock(serve: Serve) -> None:
    able, unable, unwanted = serve(), serve(immutable=False), serve(lock=None)
    assert able.store.capabilities.object_lock and able.store.capabilities.versioning
    assert able.store.settings().object_lock and able.store.settings().versioning
    assert not unable.store.capabilities.object_lock
    assert (unable.store.settings().object_lock, unable.store.settings().versioning) == (False, None)
    assert not unwanted.store.capabilities.object_lock
    for served in (unable, unwanted):
        with pytest.raises(StoreError, match="cannot lock"):
            served.store.put("a", _X, retain_until=UNTIL)
        with pytest.raises(StoreError, match="cannot lock"):
            served.store.attack("a")
        assert [*served.store.list()] == []


@pytest.mark.parametrize(("lock", "mode"), [("compliance", "locked"), ("governance", "unlocked")])
@pytest.mark.parametrize("body", [_X, _LARGE], ids=["whole", "blocks"])
def test_the_service_itself_holds_the_lock(serve: Serve, lock: LockMode, mode: str, body: Body) -> None:
    served = serve(lock)
    served.store.put("a", body, retain_until=UNTIL)
    policy = served.container.get_blob_client("a").get_blob_properties().immutability_policy
    assert policy.expiry_time >= UNTIL
    assert policy.policy_mode == mode


def test_an_upload_that_the_service_leaves_unlocked_is_locked_then(serve: Serve) -> None:
    served = serve(locks_uploads=False)
    served.store.put("a", _X, retain_until=UNTIL)
    assert served.container.get_blob_client("a").get_blob_properties().immutability_policy.policy_mode == "locked"


def test_a_service_that_ignores_locks_is_caught(serve: Serve) -> None:
    store = serve(ignores_policies=True).store
    for body in (_X, _LARGE):
        with pytest.raises(StoreError, match="without the lock"):
            store.put(f"a/{body.size}", body, retain_until=UNTIL)


def test_a_firm_lock_stays_firm_under_a_plan_of_looser_ones(serve: Serve) -> None:
    served = serve("compliance")
    served.store.put("a", _X, retain_until=UNTIL)
    AzureStore(served.container, lock="governance").extend_lock("a", UNTIL + timedelta(days=1))
    policy = served.container.get_blob_client("a").get_blob_properties().immutability_policy
    assert policy.policy_mode == "locked" and policy.expiry_time > UNTIL + timedelta(days=1)


@pytest.mark.parametrize("deletes_hide", [False, True])
def test_what_is_locked_is_neither_replaced_nor_hidden(serve: Serve, deletes_hide: bool) -> None:
    store = serve(deletes_hide=deletes_hide).store  # where there are versions, Azure would do both
    store.put("a", _X, retain_until=UNTIL)
    with pytest.raises(ObjectLocked):
        store.put("a", Body.of(b"other"), if_absent=False)
    with pytest.raises(ObjectLocked):
        store.delete("a")
    assert read_all(store, "a") == b"x"


def test_a_lock_ends_by_the_clock_of_the_service(serve: Serve) -> None:
    served = serve()
    served.store.put("a", _X, retain_until=UNTIL)
    served.front.passed = timedelta(days=29)
    with pytest.raises(ObjectLocked):
        served.store.delete("a")
    served.front.passed = timedelta(days=31)
    served.store.delete("a")
    with pytest.raises(ObjectNotFound):
        served.store.stat("a")


class TestCanary:
    @pytest.mark.parametrize("deletes_hide", [False, True])
    def test_a_firm_lock_withstands_everything(self, serve: Serve, deletes_hide: bool) -> None:
        store = serve(deletes_hide=deletes_hide).store
        store.put("canary", _X, retain_until=UNTIL)
        held = store.stat("canary").retain_until
        for _ in range(2):  # and the canary lives on
            attempts = store.attack("canary")
            assert [attempt.what for attempt in attempts if not attempt.held] == []
            assert len(attempts) == 7
        said = {attempt.what: attempt.said for attempt in attempts}
        assert said["delete its version"] == "409 BlobImmutableDueToPolicy"
        assert said["remove the policy"] == "409 ImmutabilityPolicyDeleteOnLockedPolicy"
        assert said["overwrite"] == "done"  # as a new version, which is taken away again
        assert read_all(store, "canary") == b"x"
        assert store.stat("canary").retain_until == held

    def test_a_loose_lock_does_not(self, serve: Serve) -> None:
        store = serve("governance").store
        store.put("canary", _X, retain_until=UNTIL)
        fallen = {attempt.what for attempt in store.attack("canary") if not attempt.held}
        assert {"shorten the lock", "remove the policy"} <= fallen

    def test_no_lock_does_not(self, serve: Serve) -> None:
        store = serve().store
        store.put("canary", _X)
        attempts = store.attack("canary")
        assert (attempts[0].what, attempts[0].held, attempts[-1].held) == ("find its lock", False, False)
        with pytest.raises(ObjectNotFound):
            store.stat("canary")


class TestClasses:
    @pytest.mark.parametrize("body", [_X, _LARGE], ids=["whole", "blocks"])
    @pytest.mark.parametrize("name", ["Cool", "Cold", "Archive"])
    def test_a_put_into_a_class(self, serve: Serve, name: str, body: Body) -> None:
        served = serve()
        info = served.store.put("a", body, storage_class=name, retain_until=UNTIL)
        assert info.storage_class == name
        assert info.retain_until is not None
        assert [found.storage_class for found in served.store.list()] == [name]
        assert served.container.get_blob_client("a").get_blob_properties().blob_tier == name

    def test_a_move_keeps_bytes_and_lock(self, serve: Serve) -> None:
        store = serve().store
        store.put("a", _X, retain_until=UNTIL)
        assert store.stat("a").storage_class is None
        store.set_class("a", "Cool")
        info = store.stat("a")
        assert (info.storage_class, info.availability) == ("Cool", Availability.ONLINE)
        assert info.retain_until is not None
        assert read_all(store, "a") == b"x"

    def test_what_is_there_already_is_moved_but_never_out_of_the_archive(self, serve: Serve) -> None:
        store = serve().store
        store.put("a", _X)
        assert store.put("a", _X, storage_class="Cool").storage_class == "Cool"
        assert store.put("a", _X, storage_class="Archive").storage_class == "Archive"
        assert store.put("a", _X, storage_class="Cool").storage_class == "Archive"

    def test_a_class_that_azure_has_not_is_refused(self, serve: Serve) -> None:
        store = serve().store
        with pytest.raises(StoreError, match="GLACIER"):
            store.put("a", _X, storage_class="GLACIER")
        assert [*store.list()] == []


class TestArchive:
    def test_an_archived_object_is_recalled_and_then_read(self, serve: Serve) -> None:
        served = serve()
        store = served.store
        store.put("a/b", _X, storage_class="Archive", retain_until=UNTIL)
        assert store.stat("a/b").availability is Availability.OFFLINE
        for urgent in (False, False, True, True, False):  # asking again is harmless
            assert store.recall("a/b", urgent=urgent) is Availability.ARRIVING
            assert store.stat("a/b").availability is Availability.ARRIVING
            with pytest.raises(ObjectOffline) as caught:
                read_all(store, "a/b")
            assert caught.value.hint and not caught.value.transient
        assert served.front.priorities == ["Standard", "High"], "it is hurried once"
        served.front.release()
        assert store.recall("a/b") is Availability.ONLINE
        info = store.stat("a/b")
        assert (info.availability, info.storage_class) == (Availability.ONLINE, "Archive")
        assert info.retain_until is not None
        assert read_all(store, "a/b") == b"x"
        assert b"".join(store.open("a/b", offset=1)) == b""

    def test_what_is_urgent_is_asked_for_so(self, serve: Serve) -> None:
        served = serve()
        served.store.put("a", _X, storage_class="Archive")
        served.store.recall("a", urgent=True)
        assert served.front.priorities == ["High"]

    def test_what_is_online_needs_no_recall(self, serve: Serve) -> None:
        served = serve()
        served.store.put("a", _X, storage_class="Cool")
        assert served.store.recall("a") is Availability.ONLINE
        assert served.front.priorities == []

    def test_copies_are_no_objects(self, serve: Serve) -> None:
        served = serve()
        near = Prefixed(served.store, "near")
        near.put("a", _X, storage_class="Archive")
        near.recall("a")
        served.front.release()
        assert read_all(near, "a") == b"x"
        assert served.container.download_blob("rehydrated/near/a").readall() == b"x"
        assert [info.key for info in near.list()] == ["a"]
        assert [info.key for info in served.store.list()] == ["near/a"]
        assert [*served.store.list("rehydrated/")] == []
        with pytest.raises(UsageError):
            served.store.put("rehydrated/near/b", _X)

    def test_a_copy_goes_with_its_original(self, serve: Serve) -> None:
        served = serve()
        _recalled(served, "a")
        served.store.delete("a")
        assert _copies(served) == []

    def test_a_copy_of_what_lay_here_before_is_not_read(self, serve: Serve) -> None:
        served = serve()
        _recalled(served, "a")
        served.container.delete_blob("a")  # not by us: the copy stays
        assert _copies(served) == ["rehydrated/a"]
        newer = served.container.get_blob_client("rehydrated/a").get_blob_properties().last_modified
        while datetime.now(UTC) < newer + timedelta(seconds=1):  # Azure tells whole seconds
            pass
        served.store.put("a", Body.of(b"y"), storage_class="Archive")
        assert served.store.stat("a").availability is Availability.OFFLINE
        with pytest.raises(ObjectOffline):
            read_all(served.store, "a")
        served.store.recall("a")
        served.front.release()
        assert read_all(served.store, "a") == b"y"

    def test_old_copies_go_at_the_first_recall_of_a_process(self, serve: Serve) -> None:
        served = serve()
        _recalled(served, "a")
        served.front.passed = timedelta(days=6)
        later = AzureStore(served.container)
        later.put("b", _X, storage_class="Archive")
        later.recall("b")
        assert _copies(served) == ["rehydrated/a", "rehydrated/b"]
        served.front.passed = timedelta(days=8)
        served.store.put("c", _X, storage_class="Archive")
        AzureStore(served.container).recall("c")
        assert _copies(served) == ["rehydrated/c"]
        assert served.store.stat("a").availability is Availability.OFFLINE

    def test_a_copy_that_goes_while_it_is_read_is_not_the_object_s_absence(self, serve: Serve) -> None:
        served = serve()
        _recalled(served, "a")
        pieces = served.store.open("a")
        served.container.delete_blob("rehydrated/a")
        with pytest.raises(ObjectOffline):
            next(pieces)

    def test_the_same_content_again_is_success_in_the_archive_too(self, serve: Serve) -> None:
        served = serve()
        for body in (_X, _LARGE):
            served.store.put(f"a/{body.size}", body, storage_class="Archive")
            assert served.store.put(f"a/{body.size}", body).size == body.size
            with pytest.raises(StoreError, match="is there"):
                served.store.put(f"a/{body.size}", Body.of(b"other"))
        blob = served.container.get_blob_client("foreign")
        blob.upload_blob(b"x", standard_blob_tier=StandardBlobTier.ARCHIVE)
        with pytest.raises(ObjectOffline):
            served.store.put("foreign", _X)

    def test_a_blob_that_somebody_moves_out_arrives(self, serve: Serve) -> None:
        served = serve()
        served.store.put("a", _X, storage_class="Archive")
        served.store.set_class("a", "Hot")
        assert served.store.recall("a") is Availability.ARRIVING
        served.front.release()
        assert served.store.stat("a").storage_class is None
        assert read_all(served.store, "a") == b"x"


class TestRevive:
    def test_what_was_laid_over(self, serve: Serve) -> None:
        served = serve()
        for body in (_X, Body.of(b"y"), Body.of(b"z")):
            served.container.upload_blob("a", bytes(body.chunks[0]), overwrite=True)
        assert served.store.revive("a", _X.sha256)
        assert read_all(served.store, "a") == b"x"
        assert served.store.revive("a", Body.of(b"z").sha256)
        assert read_all(served.store, "a") == b"z"
        assert served.store.revive("a", Body.of(b"z").sha256)  # it is there

    def test_what_was_deleted_comes_back_with_its_lock(self, serve: Serve) -> None:
        served = serve(deletes_hide=True)
        served.store.put("a", _X, retain_until=UNTIL)
        served.container.delete_blob("a")
        assert [*served.store.list()] == []
        assert served.store.revive("a", _X.sha256)
        assert read_all(served.store, "a") == b"x"
        with pytest.raises(ObjectLocked):
            served.store.delete("a")

    def test_what_there_never_was(self, serve: Serve) -> None:
        served = serve()
        served.store.put("a", _X)
        served.store.put("ab", Body.of(b"y"))
        assert not served.store.revive("a", Body.of(b"y").sha256)
        assert not served.store.revive("none", _X.sha256)
        assert read_all(served.store, "a") == b"x"

    def test_soft_delete(self, serve: Serve) -> None:
        kept, lost = serve(lock=None, immutable=False, soft_delete=True), serve(lock=None, immutable=False)
        for served, revived in ((kept, True), (lost, False)):
            served.store.put("a", _X)
            served.store.delete("a")
            assert served.store.revive("a", _X.sha256) is revived
        assert read_all(kept.store, "a") == b"x"

    def test_an_archived_version_arrives(self, serve: Serve) -> None:
        served = serve()
        served.store.put("a", _LARGE, storage_class="Archive")
        served.container.upload_blob("a", b"laid over", overwrite=True)
        assert served.store.revive("a", _LARGE.sha256)
        assert served.store.stat("a").availability is Availability.ARRIVING
        served.front.release()
        assert sha256_of(served.store.open("a")) == _LARGE.sha256

    def test_an_archived_version_that_cannot_be_told_is_said(self, serve: Serve) -> None:
        served = serve()
        served.container.upload_blob("a", b"x", standard_blob_tier=StandardBlobTier.ARCHIVE)
        served.container.upload_blob("a", b"laid over", overwrite=True)
        with pytest.raises(ObjectOffline):
            served.store.revive("a", _X.sha256)


def test_azurite_itself_has_no_old_versions(azurite_port: int) -> None:
    store = AzureStore(azurite_container(f"http://127.0.0.1:{azurite_port}"))
    store.put("a", _X)
    assert not store.revive("a", Body.of(b"y").sha256)
    assert store.settings().object_lock is False


def _recalled(served: Served, key: str) -> None:
    served.store.put(key, _X, storage_class="Archive")
    served.store.recall(key)
    served.front.release()
    assert read_all(served.store, key) == b"x"


def _copies(served: Served) -> list[str]:
    return [blob.name for blob in served.container.list_blobs(name_starts_with="rehydrated/")]
