"""Objects of buckets brought back to what their rows say, over real servers."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.files.repair_bucket import repair_bucket
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.operations.repair import repair
from dr_pipelines.progress import Silent
from dr_pipelines.reconcile.repair import plan_repair
from dr_pipelines.storage.bucket import Bucket, BucketObject, ObjectHeaders
from tests.support.bucket_shop import HEADERS, BucketShop, azure_store, moto_store, rclone_store
from tests.support.forked import Forked
from tests.support.gate import gate_before

NOBODY = "no snapshot has the version that its row names"
CHANGED = "it was changed since it was looked at"


def shop_with(server: EmbeddedPostgres, folder: Path, store: dict[str, Any]) -> BucketShop:
    """Of which the rows, the newest snapshot and the bucket say the same."""
    made = BucketShop(server, folder, store)
    made.make_table()
    for name, content in {"right": "right", "folder/lost ü": "lost", "wrong": "as its row says"}.items():
        made.add(name, content)
    made.snapshot()
    return made


@pytest.fixture
def moto_shop(rows_server: EmbeddedPostgres, moto_port: int, tmp_path: Path) -> BucketShop:
    return shop_with(rows_server, tmp_path, moto_store(tmp_path, moto_port))


@pytest.fixture(params=["aws", "versions", "elsewhere", "azure"])
def shop(
    request: pytest.FixtureRequest, rows_server: EmbeddedPostgres, shared_s3: EmbeddedS3, tmp_path: Path
) -> BucketShop:
    if request.param == "elsewhere":
        store = rclone_store(tmp_path, shared_s3)
    elif request.param == "azure":
        store = azure_store(tmp_path, request.getfixturevalue("azurite_port"))
    else:
        port = request.getfixturevalue("moto_port")
        store = moto_store(tmp_path, port, versions=request.param == "versions")
    return shop_with(rows_server, tmp_path, store)


def damage(shop: BucketShop) -> None:
    shop.remove("folder/lost ü")
    shop.put("wrong", "something else")


def asides(shop: BucketShop) -> dict[str, str]:
    return {name: content for name, content in shop.contents().items() if ".dr-replaced-" in name}


def test_what_a_snapshot_has_comes_back(shop: BucketShop) -> None:
    shop.add("never seen", file=False)
    damage(shop)
    before = shop.contents()
    would = shop.look(plan_only=True)
    assert would.planned is not None and would.repaired is None
    assert ([*would.planned.restored], [*would.planned.replaced]) == (["store/folder/lost ü"], ["store/wrong"])
    assert would.planned.not_repaired == {"store/never seen": NOBODY}
    assert shop.contents() == before
    done = shop.look(mend=True)
    assert done.repaired is not None
    assert (done.repaired.restored, [*done.repaired.replaced]) == (("store/folder/lost ü",), ["store/wrong"])
    assert done.repaired.not_repaired == would.planned.not_repaired
    assert [row["path"] for rows in done.check.details["findings"].values() for row in rows] == ["store/never seen"]
    assert kept(shop, done.repaired.replaced["store/wrong"]) == "something else"
    found, headers = shop.bucket.stat("store/folder/lost ü")
    assert (b"".join(shop.bucket.read(found)[1]), headers) == (b"lost", HEADERS)
    after = shop.contents()
    assert after["wrong"] == "as its row says"
    again = shop.look(mend=True)
    assert again.repaired is not None and not again.repaired.restored and not again.repaired.replaced
    assert shop.contents() == after


def kept(shop: BucketShop, where: str) -> str:
    if not where.startswith("its version "):
        return asides(shop)[where.removeprefix("store/")]
    assert not asides(shop)
    now, _ = shop.bucket.stat("store/wrong")
    etag = hashlib.md5(b"something else").hexdigest()
    old = BucketObject(now.key, len("something else"), now.modified, etag, where.removeprefix("its version "))
    return b"".join(shop.bucket.read(old)[1]).decode()


def test_what_was_written_meanwhile_stays(shop: BucketShop) -> None:
    shop.add("goes", "goes")
    shop.snapshot()
    damage(shop)
    shop.put("goes", "another")
    found = shop.look().found
    shop.put("folder/lost ü", "uploaded anew")
    shop.put("wrong", "written anew")
    shop.remove("goes")
    done = repair(shop.site(), "docs", found, Silent())
    assert not done.restored and not done.replaced
    assert done.not_repaired == {
        "store/folder/lost ü": "somebody put another object there", "store/wrong": CHANGED, "store/goes": CHANGED,
    }  # fmt: skip
    assert {name: text for name, text in shop.contents().items() if "goes" not in name} == {
        "right": "right", "folder/lost ü": "uploaded anew", "wrong": "written anew",
    }  # fmt: skip


def test_damaged_packs_repair_nothing(moto_shop: BucketShop) -> None:
    damage(moto_shop)
    for pack in (moto_shop.folder / "repository/files/docs/archives").rglob("*"):
        if pack.is_file():
            pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    before = moto_shop.contents()
    done = moto_shop.look(mend=True)
    assert done.repaired is not None and not done.repaired.restored and not done.repaired.replaced
    assert set(done.repaired.not_repaired) == {"store/folder/lost ü", "store/wrong"}
    assert moto_shop.contents() == before


def test_rows_that_do_not_agree_change_nothing(moto_shop: BucketShop) -> None:
    moto_shop.add("right", "what another row says", file=False)
    moto_shop.add("twice", "one")
    moto_shop.snapshot()
    moto_shop.add("twice", "two", file=False)
    moto_shop.put("twice", "three")
    done = moto_shop.look(mend=True)
    assert done.repaired is not None
    assert done.repaired.not_repaired == {
        "store/right": "another row that points at it finds it right",
        "store/twice": "the rows that point at it name different versions",
    }
    assert moto_shop.contents()["twice"] == "three"


class Failing:
    """A bucket that is down from its nth call on."""

    def __init__(self, bucket: Bucket, at: int) -> None:
        self._bucket, self._left, self.name = bucket, at, bucket.name

    def _asked(self) -> Bucket:
        self._left -= 1
        if self._left <= 0:
            raise StoreUnavailable("down, as told")
        return self._bucket

    def list(self, prefix: str = "") -> Iterator[BucketObject]:
        return self._asked().list(prefix)

    def read(self, found: BucketObject) -> tuple[ObjectHeaders, Iterator[bytes]]:
        return self._asked().read(found)

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        return self._asked().stat(key)

    def put(
        self, key: str, pieces: Iterable[bytes], headers: ObjectHeaders, **only: Any
    ) -> tuple[BucketObject, ObjectHeaders]:
        return self._asked().put(key, pieces, headers, **only)

    def delete(self, found: BucketObject) -> None:
        self._asked().delete(found)

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        return self._bucket.cannot_hold(headers)


def test_a_store_that_fails_at_any_call_loses_nothing(moto_shop: BucketShop) -> None:
    site = moto_shop.site()
    damage(moto_shop)
    found = moto_shop.look().found
    tiers = Tiers(site.readable_repositories("docs")[0], "docs", Silent())
    snapshots = [one.manifest for one in tiers.known()]
    wanted = plan_repair(found, snapshots, site.clock.now(), tiers.table)
    for call in range(1, 100):
        if call > 1:
            damage(moto_shop)
        try:
            repair_bucket(tiers, Failing(moto_shop.bucket, call), wanted, clock=SystemClock(), progress=Silent())
        except StoreUnavailable:
            now = moto_shop.contents()
            assert now["wrong"] == "something else" or "something else" in asides(moto_shop).values(), call
            done = moto_shop.look(mend=True)
        else:
            assert call > 4
            break
        assert done.check.verdict is Verdict.PASS, call
        assert [*asides(moto_shop).values()] == ["something else"], call
        moto_shop.remove(*asides(moto_shop))
    assert moto_shop.contents()["wrong"] == "as its row says"


@pytest.mark.parametrize("write", [2, 3])
def test_a_repair_that_is_killed_goes_on(
    rows_server: EmbeddedPostgres, moto_port: int, tmp_path: Path, write: int
) -> None:
    shop = shop_with(rows_server, tmp_path, moto_store(tmp_path, moto_port))
    damage(shop)
    with gate_before(moto_port) as gate:
        shop.store = {**shop.store, "endpoint": gate.endpoint}
        gate.opens(closing_at=write)
        process = Forked(["--plan", shop.plan_file(), "reconcile", "docs", "--settle", "0", "--repair"])
        gate.until_closed(process)
        process.kill()
        assert process.code() == -signal.SIGKILL
        gate.opens()
        assert len(asides(shop)) <= 1
        done = shop.look(mend=True)
        assert done.check.verdict is Verdict.PASS, done.check
        assert [*asides(shop).values()] == ["something else"]
        assert {name: text for name, text in shop.contents().items() if "replaced" not in name} == {
            "right": "right", "folder/lost ü": "lost", "wrong": "as its row says",
        }  # fmt: skip
