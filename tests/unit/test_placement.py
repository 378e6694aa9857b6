"""How objects lie in a store: what is locked, what is in a colder class, and what never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan import Plan
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.placement import Placement
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WINDOW = timedelta(days=8)


def _placed() -> tuple[MemoryStore, Repository]:
    store = MemoryStore(clock=FixedClock(AT), classes=("COLD",), offline=())
    placement = Placement(FixedClock(AT), lock_for=WINDOW, storage_class="COLD")
    return store, Repository(store, Codec(1), "archive", placement)


def _lies(store: MemoryStore) -> dict[str, tuple[bool, str | None]]:
    """Locked for the window, and the class, by the part of each key that says what it is."""
    found = [store.stat(info.key) for info in store.list()]
    return {
        info.key.split("/", 3)[-1].split("/", 1)[-1]: (info.retain_until == AT + WINDOW, info.storage_class)
        for info in found
    }


def test_a_backup_is_locked_and_its_packs_are_in_the_class() -> None:
    store, repository = _placed()
    writer = repository.begin("shop", BackupKind.FULL, clock=FixedClock(AT))
    archive = writer.archive()
    archive.write(b"x" * 1000)
    parts = {"archive": archive.close(), "index": writer.put_encoded("index", b"[]")}
    writer.commit(manifest(writer.label, **parts, backup_manifest=writer.put_encoded("backup_manifest", b"{}")))
    lies = _lies(store)
    assert lies.pop("packs/000000.zst") == (True, "COLD")
    assert {"manifest.json", "index.json.zst", "backup_manifest.zst", "break-glass/restore.sh"} <= set(lies)
    assert set(lies.values()) == {(True, None)}


def test_what_is_removed_as_a_matter_of_course_is_never_locked() -> None:
    store, repository = _placed()
    wal = repository.wal("shop", "1")
    first = WalSegment(Timeline(1), 0, 1 << 20)
    wal.put_segment(first, bytes(first.size))
    wal.put_partial(first.next(), Lsn(first.size + 8), bytes(8))
    wal.put_history(Timeline(2), b"1\t0/8\tno recovery target\n")
    repository.begin("shop", BackupKind.FULL, clock=FixedClock(AT))
    lies = {
        "claim" if "claims" in key else "head" if ".partial." in key else "history" if ".history." in key
        else "segment" if first.name in key else key.rpartition("/")[2]: how
        for key, how in _lies(store).items()
    }  # fmt: skip
    assert lies == {
        "claim": (False, None), "head": (False, None), "wal.json": (False, None),
        "history": (True, None), "segment": (True, "COLD"),
    }  # fmt: skip


def test_the_plan_says_how_long_and_where() -> None:
    cold = {"type": "s3", "endpoint": "http://127.0.0.1:1", "bucket": "cold", "lock": {"mode": "compliance"},
            "classes": [{"name": "IA", "after": "30 days"}, {"name": "COLD"}]}  # fmt: skip
    plan = Plan.model_validate(
        {
            "version": 1, "name": "test", "encryption": "none",
            "storage": {"disk": {"type": "local", "path": "disk"}, "cold": cold},
            "databases": {"shop": {
                "connection": {"host": "db"}, "schedule": {"full": "weekly"},
                "retention": {"daily": 7, "tiers": {"archive": {"window": "2 days"}}},
                "storage": {"primary": "disk", "archive": "cold"},
            }},
        }
    )  # fmt: skip
    site = Site(plan, clock=FixedClock(AT))
    archive = site.placement("shop", "archive")
    assert (archive.lock_for, archive.storage_class) == (timedelta(days=2 + 7), "COLD")
    primary = site.placement("shop", "primary")
    assert (primary.lock_for, primary.storage_class) == (None, None)
