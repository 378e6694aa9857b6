"""Packs of files move to colder storage classes as their archives grow old, by the rules of `aging.py`. Pure.

An archive is shared by all snapshots that name it, and has an age of its own: since the snapshot that put it was begun.
A new snapshot may need what is cold: that is what a cold tier is for. Tables and manifests never move.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dr_pipelines.replication.aging import AgingPlan, AgingRules, Choosing, Lasting
from dr_pipelines.repository.file_layout import archive_begun
from dr_pipelines.repository.snapshot_manifest import ArchiveList, FileArchive
from dr_pipelines.repository.snapshots import SnapshotCatalog


def plan_file_aging(catalog: SnapshotCatalog, rules: AgingRules, lasting: Lasting, *, now: datetime) -> AgingPlan:
    """Of what no snapshot names (it is being put, or goes) nothing moves. `lasting.at_hand`: snapshots that must be
    restored without a recall."""
    choosing = Choosing(rules)
    named, ends = _named(catalog, lasting, now)
    needed = {archive.name for one in catalog.snapshots if one.label in lasting.at_hand for archive in one.archives}
    for name, archive in named.items():
        there = {info.key: info for info in catalog.archives.get(name, ())}
        until, age = ends[name], now - archive_begun(name)

        def lasts(minimum: timedelta, until: datetime | None = until) -> bool:
            return until is None or until >= now + minimum

        for pack in archive.packs:
            if pack.key in there:
                choosing.choose(
                    pack.key,
                    pack.size,
                    there[pack.key].storage_class,
                    age=age,
                    at_hand=name in needed,
                    lasts=lasts,
                )
    return choosing.plan


def _named(
    catalog: SnapshotCatalog, lasting: Lasting, now: datetime
) -> tuple[dict[str, FileArchive], dict[str, datetime | None]]:
    """Each archive once, and when it goes: with the last snapshot that names it. One that the newest names is likely to
    be named by the next ones too, and the longer it has been so, the longer it will: it is given its age once more."""
    named: dict[str, FileArchive] = {}
    ends: dict[str, datetime | None] = {}
    for listed, until in _lists(catalog, lasting, now).items():
        for archive in listed.archives:
            named[archive.name] = archive
            ends[archive.name] = _later(ends.get(archive.name, now), until)
    for archive in catalog.snapshots[-1].archives if catalog.snapshots else ():
        if (end := ends[archive.name]) is not None:
            ends[archive.name] = end + (now - archive_begun(archive.name))
    return named, ends


def _lists(catalog: SnapshotCatalog, lasting: Lasting, now: datetime) -> dict[ArchiveList, datetime | None]:
    """When each goes. Snapshots share them: what hundreds name is gone through once."""
    ends: dict[ArchiveList, datetime | None] = {}
    for one in catalog.snapshots:
        for listed in one.listed:
            ends[listed] = _later(ends.get(listed, now), lasting.until.get(one.label, now))
    return ends


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    """None is never."""
    return None if one is None or other is None else max(one, other)
