"""Lists of archives: snapshots share them, and together they say what each needs, no more and no less."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import IntegrityError, RepositoryError
from dr_pipelines.repository.archive_lists import MOST_LISTS, arranged, decode_list, encode_list
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.sealed import seal, unseal
from dr_pipelines.repository.snapshot_manifest import ArchiveList, FileArchive
from dr_pipelines.repository.snapshots import begin_snapshot, read_snapshot, read_snapshots
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from tests.support.faulty_store import FaultyStore
from tests.support.file_tiers import BEGIN, DOCS, FIRST, SECOND, empty, filled, flip, snapshot, take


def archive(number: int) -> FileArchive:
    name = f"20260301T000000Z-{number:06d}"
    pack = StoredObject(key=f"files/docs/archives/{name}/000000.zst", size=number, sha256=f"{number:064x}")
    return FileArchive(name=name, size=number, pack_size=1 << 25, packs=(pack,))


def listed(archives: Sequence[FileArchive], before: Sequence[ArchiveList]) -> tuple[list[ArchiveList], int]:
    """All lists of a snapshot, and how many archives it listed anew."""
    again, new = arranged(archives, before)
    made = [ArchiveList(some, StoredObject(key=repr(some), size=1, sha256="0" * 64)) for some in new]
    return [*again, *made], sum(map(len, new))


def history(random_: random.Random, base: int, hours: int) -> Iterator[list[FileArchive]]:
    """Each hour three archives come, an old one goes now and then, and what is new soon."""
    old, young = [archive(number) for number in range(base)], dict[int, FileArchive]()
    for hour in range(hours):
        yield sorted([*old, *young.values()], key=lambda one: one.name)
        if hour % 6 == 5:
            old.pop(random_.randrange(len(old)))
        young = {number: one for number, one in young.items() if random_.random() < 0.98}
        young |= {number: archive(number) for number in range(base + 3 * hour, base + 3 * hour + 3)}


@pytest.mark.parametrize("base", [5, 3000])
def test_lists_say_what_is_needed_once_and_are_few(base: int) -> None:
    lists: list[ArchiveList] = []
    for archives in history(random.Random(base), base, 30 if base == 5 else 200):
        lists, _ = listed(archives, lists)
        assert sorted((one for each in lists for one in each.archives), key=lambda one: one.name) == archives
        assert len(lists) <= MOST_LISTS
        assert all(each.archives for each in lists)


def test_a_history_writes_little_more_than_it_has() -> None:
    lists: list[ArchiveList] = []
    written = []
    for archives in history(random.Random(1), 3000, 200):
        lists, new = listed(archives, lists)
        written.append(new)
    assert written[0] == 3000
    assert sum(written[1:]) < 200 * 3000 / 20  # each of them its own manifest: 200 times 3,000


def test_what_is_as_it_was_is_listed_by_nobody_anew() -> None:
    archives = [archive(number) for number in range(3000)]
    lists, _ = listed(archives, [])
    assert listed(archives, lists) == (sorted(lists, key=lambda one: len(one.archives)), 0)
    _, [new] = arranged([*archives, archive(3000)], lists)
    assert new == (archive(3000),)
    gone = len(lists[0].archives) - 1
    _, [new] = arranged([one for one in archives if one != lists[0].archives[0]], lists)
    assert new == lists[0].archives[1:] and len(new) == gone


def test_an_archive_that_is_not_the_one_that_was_listed_is_listed_anew() -> None:
    other = archive(1).model_copy(update={"size": 7})
    lists, _ = listed([archive(1)], [])
    assert arranged([other], lists) == ([], [(other,)])


def test_a_list_is_read_without_a_key_and_only_as_it_was_written() -> None:
    some = (archive(1), archive(2))
    assert decode_list(encode_list(some)) == some
    assert role_of("files/docs/lists/20260301T000000Z-000000.json.zst") is Role.GUIDE
    for bad in (b"", b"{}", Codec(1).encode(b"[]"), Codec(1).encode(b'{"archives": [{}]}')):
        with pytest.raises(IntegrityError):
            decode_list(bad)


# --- in a store ---


def sizes(store: ObjectStore, under: str) -> dict[str, int]:
    return {info.key: info.size for info in store.list(f"files/{DOCS}/{under}")}


def test_a_snapshot_that_changes_little_writes_little() -> None:
    repository = empty()
    writer = begin_snapshot(repository, DOCS, clock=FixedClock(BEGIN))
    table = writer.put_table(b"rows", changes=False)
    first = take(repository, BEGIN + timedelta(hours=1), {"a": b"a"})
    plain = first.model_copy(update={"label": writer.label, "table": table, "lists": (), "break_glass": ()})
    large = writer.commit(plain, [archive(number) for number in range(1, 2001)])
    before = sizes(repository.store, "")
    second = take(repository, BEGIN + timedelta(hours=2), {"b": b"b"}, large)
    grown = {key: size for key, size in sizes(repository.store, "").items() if key not in before}
    assert len(second.archives) == 2001
    assert sum(size for key, size in grown.items() if "/archives/" not in key) < 6000
    assert len(second.lists) == len(large.lists) + 1
    assert read_snapshot(repository.store, DOCS, second.label).archives == second.archives


def test_each_list_is_read_once() -> None:
    opened: list[str] = []

    class Opened(FaultyStore):
        def open(self, key: str, *, offset: int = 0, length: int | None = None):  # type: ignore[no-untyped-def]
            opened.append(key)
            return super().open(key, offset=offset, length=length)

    one, two, three = read_snapshots(Opened(filled().store), DOCS).snapshots
    names = [stored.key for snapshot in (one, two, three) for stored in snapshot.lists]
    read = [key for key in opened if "/lists/" in key]
    assert len(names) > len(read) == len({*names})
    assert one.listed[0] is two.listed[0] is three.listed[0]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_list_that_cannot_be_read_is_told_and_costs_what_names_it(how: str) -> None:
    repository = filled()
    store, whole = repository.store, snapshot(repository.store, SECOND)
    bad = next(stored.key for stored in whole.lists if stored not in snapshot(store, FIRST).lists)
    flip(store, bad) if how == "damaged" else store.delete(bad)
    catalog = read_snapshots(store, DOCS)
    assert [one.label for one in catalog.usable] == [FIRST]
    broken = next(one for one in catalog.snapshots if one.label == SECOND)
    assert bad in (catalog.trouble(broken) or "")
    assert any(bad in problem for problem in catalog.problems)
    assert [one.stored.key for one in broken.unread if one.stored] == [bad]
    assert broken == whole  # as a manifest it is what it was


# --- formats ---


def old_form(store: ObjectStore, label: str) -> None:
    """As it was written before there were lists."""
    found = snapshot(store, label)
    fields = unseal(read_all(store, found.layout.manifest))
    fields |= {"format": 1, "archives": [json.loads(one.model_dump_json()) for one in found.archives]}
    del fields["lists"]
    store.put(found.layout.manifest, Body.of(seal(fields)), if_absent=False)
    for stored in found.lists:
        store.delete(stored.key)


def test_a_manifest_without_lists_is_read() -> None:
    repository = empty()
    made = take(repository, BEGIN, {"a": b"a" * 3000})
    old_form(repository.store, made.label)
    [read] = read_snapshots(repository.store, DOCS).usable
    assert (read.archives, read.lists, read.unread) == (made.archives, (), ())
    assert {stored.key for stored in made.packs} <= {stored.key for stored in read.objects}
    after = take(repository, BEGIN + timedelta(hours=1), {"b": b"b"}, read)
    assert read_snapshot(repository.store, DOCS, after.label).archives == after.archives
    assert len(after.archives) == 2 and len(after.lists) == 1


def test_a_newer_manifest_is_refused() -> None:
    repository = empty()
    made = take(repository, BEGIN, {"a": b"a"})
    fields = {**unseal(read_all(repository.store, made.layout.manifest)), "format": 3}
    repository.store.put(made.layout.manifest, Body.of(seal(fields)), if_absent=False)
    with pytest.raises(RepositoryError, match="is of format 3; this program reads up to 2"):
        read_snapshot(repository.store, DOCS, made.label)
    assert "format 3" in read_snapshots(repository.store, DOCS).problems[0]
