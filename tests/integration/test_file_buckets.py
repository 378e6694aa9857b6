"""File sets restored to buckets, over a real server: keys, contents, headers and metadata."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.files.bucket import BucketSource
from dr_pipelines.files.bucket_standing import standing
from dr_pipelines.files.pack_builder import PACK_SIZE
from dr_pipelines.files.restore import FilesReport
from dr_pipelines.files.restore_bucket import restore_to_bucket
from dr_pipelines.files.table import shown
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.azure_objects import AzureObjects
from dr_pipelines.storage.bucket import Bucket, ObjectHeaders
from dr_pipelines.storage.retrying_bucket import RetryingBucket
from dr_pipelines.storage.s3_objects import S3Objects
from tests.support.file_sets import BEGIN, FileSet, tree
from tests.support.file_tiers import flip
from tests.support.stores import PART, azurite_container, moto_bucket, rclone_bucket


@pytest.fixture
def bucket(moto_port: int) -> Bucket:
    client, name = moto_bucket(moto_port)
    return RetryingBucket(S3Objects(client, name, profile="aws"), Attempts(SystemClock()), part_size=PART)


@pytest.fixture
def files(tmp_path: Path) -> FileSet:
    return FileSet(tmp_path / "set")


def restore(files: FileSet, bucket: Bucket, prefix: str = "", *, overwrite: bool = False) -> FilesReport:
    tiers = files.read()
    return restore_to_bucket(
        tiers, tiers.find("latest"), bucket, prefix, overwrite=overwrite, clock=FixedClock(BEGIN), progress=files
    )


def contents(bucket: Bucket, prefix: str = "") -> dict[str, tuple[ObjectHeaders, bytes]]:
    found = {}
    for one in bucket.list(prefix):
        headers, pieces = bucket.read(one)
        found[one.key.removeprefix(prefix)] = headers, b"".join(pieces)
    return found


def test_objects_come_back_with_headers_and_metadata(files: FileSet, bucket: Bucket, tmp_path: Path) -> None:
    for key, content in {
        "a/b": b"1",
        "a//b": b"22",
        "../up": b"3",
        "ü 😀": b"4" * 5000,
        "none": b"",
        "dir/": b"",
    }.items():
        headers = ObjectHeaders("text/x-" + str(len(content)), "no-cache", metadata={"who": "ünï", "n": key[:1]})
        bucket.put(key, [content], headers, size=len(content))
    files.take(BucketSource(bucket))
    before = contents(bucket)
    report = restore(files, bucket, "again/")
    assert contents(bucket, "again/") == before
    assert (report.files, report.failed, report.bytes) == (6, {}, 5004)
    to_disk = files.restore(tmp_path / "target")
    assert set(to_disk.failed) == {"../up", "a//b"}
    assert {*tree(tmp_path / "target")} == {b"a", b"a/b", "ü 😀".encode(), b"none", b"dir"}
    assert (tmp_path / "target" / "dir").is_dir()


def test_a_directory_becomes_objects_and_what_is_there_stays(files: FileSet, bucket: Bucket) -> None:
    large = os.urandom(1 << 16) * (PACK_SIZE >> 16) + b"end"
    files.write({"d/a": b"a", "b": b"b", "large": large})
    (files.source / "link").symlink_to("b")
    (files.source / os.fsdecode(b"\xff")).write_bytes(b"no Unicode")
    manifest = files.take()
    bucket.put("x/b", [b"mine"], ObjectHeaders(), size=4)
    report = restore(files, bucket, "x")
    assert (report.kept, set(report.failed)) == (("b",), {"link", "\\xff"})
    assert {key: found[1] for key, found in contents(bucket, "x/").items()} == {
        "d/a": b"a",
        "b": b"mine",
        "large": large,
    }
    assert not restore(files, bucket, "x", overwrite=True).kept
    assert contents(bucket, "x/")["b"][1] == b"b"
    packs = next(one.packs for one in manifest.archives if len(one.packs) == 2)
    flip(files.tiers[0].store, packs[1].key)
    report = restore(files, bucket, "y")
    assert set(report.failed) == {"link", "\\xff", "large"}
    assert contents(bucket, "y/").keys() == {"d/a", "b"}


def test_what_is_there_as_it_was_is_not_put_again(files: FileSet, bucket: Bucket) -> None:
    headers = ObjectHeaders("text/plain", "no-cache", metadata={"who": "ünï"})
    for key in ("as it was", "changed", "longer", "other type", "ü/none"):
        content = b"" if key == "ü/none" else b"first"
        bucket.put(key, [content], headers, size=len(content))
    manifest = files.take(BucketSource(bucket))
    all_the_same = restore(files, bucket, overwrite=True)
    assert (all_the_same.same, all_the_same.files, all_the_same.packs) == (5, 0, 0)
    before = contents(bucket)
    bucket.put("changed", [b"other"], headers, size=5, if_absent=False)
    bucket.put("longer", [b"first and more"], headers, size=14, if_absent=False)
    bucket.put("other type", [b"first"], ObjectHeaders("text/html"), size=5, if_absent=False)
    bucket.delete(bucket.stat("ü/none")[0])
    rows = files.read().table(manifest)
    for few in (0, 1000):
        seen = standing(bucket, "", rows, lambda row: ObjectHeaders(**row.headers, metadata=row.metadata), few=few)
        assert seen == ({b"as it was"}, {b"changed", b"longer", b"other type"})
    kept = restore(files, bucket)
    assert (kept.same, kept.files, kept.kept) == (1, 1, ("changed", "longer", "other type"))
    again = restore(files, bucket, overwrite=True)
    assert (again.same, again.files, again.kept) == (2, 3, ())
    assert contents(bucket) == before
    # Elsewhere ETags may say nothing: then the content does.
    restore(files, bucket, "copy", overwrite=True)
    bucket.put("copy/changed", [b"x"], headers, size=1, if_absent=False)
    assert restore(files, bucket, "copy", overwrite=True).same == 4


def test_a_key_that_the_service_always_fails_at_costs_no_other(
    files: FileSet, shared_s3: EmbeddedS3, tmp_path: Path
) -> None:
    """Where keys are paths of a file system, `a` and `a/b` cannot both be."""
    client, name = rclone_bucket(shared_s3)
    bucket = RetryingBucket(S3Objects(client, name), Attempts(FixedClock(BEGIN), attempts=2))
    paths = [b"a", b"a/b", b"no\0", b"", b"good", b"\xff"]
    files.write({f"{number}": f"{number}".encode() * (number + 1) for number in range(len(paths))})
    files.take()
    files.forge({"path": paths})
    bucket.put("a", [b"x"], ObjectHeaders(), size=1)  # whichever of two new ones came first, both might fail
    report = restore(files, bucket, overwrite=True)
    assert contents(bucket, "good")[""][1] == b"44444"
    assert len({"a", "a/b"} & report.failed.keys()) == 1
    assert len(report.failed) == len(paths) - report.files
    assert report.failed["\\xff"] == "a bucket's keys are Unicode, and the path is not"
    sizes = {shown(path): number + 1 for number, path in enumerate(paths)}
    assert report.bytes == sum(size for path, size in sizes.items() if path not in report.failed)


def test_a_bucket_that_fails_at_everything_ends_the_restore(
    files: FileSet, shared_s3: EmbeddedS3, tmp_path: Path
) -> None:
    client, name = rclone_bucket(shared_s3)
    bucket = RetryingBucket(S3Objects(client, name), Attempts(FixedClock(BEGIN), attempts=1))
    files.write({f"{number}": b"x" for number in range(20)})
    files.take()
    files.forge({"path": [b"a", *(f"a/{number}".encode() for number in range(19))]})
    bucket.put("a", [b"x"], ObjectHeaders(), size=1)
    with pytest.raises(StoreUnavailable):
        restore(files, bucket)


def test_names_that_azure_has_no_address_for_are_named(files: FileSet, azurite_port: int) -> None:
    container = azurite_container(f"http://127.0.0.1:{azurite_port}")
    bucket = RetryingBucket(AzureObjects(container), Attempts(FixedClock(BEGIN)))
    files.write({f"{number}": f"{number}".encode() for number in range(4)})
    files.take()
    files.forge({"path": [b"../up", b"a/./b", b"back\\slash", b"good"]})
    report = restore(files, bucket)
    assert {*contents(bucket)} == {"good"}
    assert {*report.failed} == {"../up", "a/./b", "back\\slash"}
    assert all("Azure has no address" in why for why in report.failed.values())
