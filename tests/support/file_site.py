"""A file set of a real directory, on stores in memory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.site import Site
from dr_pipelines.storage.memory import MemoryStore
from tests.support.file_tiers import DOCS, empty


def directory_site(folder: Path, *tiers: str, **changes: Any) -> Site:
    """The file set `docs` is the folder `docs` in `folder`; its clock stands still, an hour from now: what a test
    writes is older than its snapshots. `changes` as the plan writes it."""
    source = folder / "docs"
    source.mkdir()
    names = ("primary", *tiers)
    plan = {
        "version": 1, "name": "test", "encryption": "none", "state_dir": str(folder / "state"),
        "storage": {tier: {"type": "local", "path": f"/nowhere/{tier}"} for tier in names},
        "file_storage": {DOCS: {
            "schedule": "hourly", "retention": "30 days", "source": {"type": "directory", "path": str(source)},
            "storage": {tier: tier for tier in names}, **changes,
        }},
    }  # fmt: skip
    clock = FixedClock(SystemClock().now() + timedelta(hours=1))
    stores = {name: empty(name, MemoryStore(name, clock)).store for name in names}
    return Site(Plan.model_validate(plan), clock=clock, stores=stores)


def root(site: Site) -> Path:
    source = site.file_set(DOCS).source
    assert source is not None and source.type == "directory"
    return Path(source.path)


def take_now(site: Site) -> Snapshot:
    """An hour after the one before."""
    assert isinstance(site.clock, FixedClock)
    site.clock.advance(timedelta(hours=1))
    return operations.take_snapshot(site, DOCS, Silent())
