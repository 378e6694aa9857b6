"""PostgreSQL's own `pg_combinebackup` as the oracle of our merge: a chain of real incrementals, byte for byte."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give, os_user
from dr_pipelines.postgres.merge import IncrementalHeader, IncrementalMember, is_incremental, plain_name
from dr_pipelines.postgres.unpack import PG_CONTROL, unpack_chain
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.conftest import MakePostgres
from tests.support.archives import extract, stored_link, tree
from tests.support.live import Live

_BEFORE = (
    "CREATE TABLE steady AS SELECT g AS id, repeat('s', 400) AS note FROM generate_series(1, 2000) g",
    "CREATE TABLE updated (id int PRIMARY KEY, note text)",
    "INSERT INTO updated SELECT g, repeat('u', 300) FROM generate_series(1, 5000) g",
    "CREATE TABLE shrinks AS SELECT g AS id, repeat('d', 300) AS note FROM generate_series(1, 5000) g",
    "CREATE TABLE regrown AS SELECT g AS id, repeat('r', 300) AS note FROM generate_series(1, 5000) g",
    "CREATE TABLESPACE space LOCATION '{space}'",
    "CREATE TABLE elsewhere TABLESPACE space AS SELECT g AS id FROM generate_series(1, 9000) g",
    "CREATE TABLE dropped AS SELECT g AS id FROM generate_series(1, 5000) g",
    "CREATE UNLOGGED TABLE unlogged AS SELECT g AS id FROM generate_series(1, 5000) g",
    "CREATE TABLE file AS SELECT g AS id, repeat('f', 300) AS note FROM generate_series(1, 6000) g",
    "COPY file TO '{copy}'",
    "VACUUM",  # visibility and free space maps of all
)
_BETWEEN = (
    (  # inserts, updates, deletes; the end of a table is cut off
        "UPDATE updated SET note = 'short' WHERE id % 50 = 0",
        "DELETE FROM shrinks WHERE id > 1000",
        "VACUUM (TRUNCATE) shrinks",
        "INSERT INTO steady SELECT g, 'grown' FROM generate_series(2001, 9000) g",
        "CREATE TABLE created AS SELECT g AS id FROM generate_series(1, 3000) g",
        "DROP TABLE dropped",
    ),
    (  # truncated, then grown anew by a bulk load within and without the truncating transaction
        "BEGIN; TRUNCATE regrown; COPY regrown FROM '{copy}' WITH (FREEZE); COMMIT",
        "TRUNCATE updated",
        "COPY updated FROM '{copy}'",
        "INSERT INTO shrinks SELECT g, repeat('n', 300) FROM generate_series(5001, 12000) g",
        "CREATE DATABASE by_log STRATEGY wal_log",
        "CREATE DATABASE by_copy STRATEGY file_copy",
    ),
    (  # shrinks again, below where an earlier incremental has blocks
        "DELETE FROM shrinks WHERE id > 500",
        "VACUUM (TRUNCATE, FREEZE)",
        "INSERT INTO unlogged SELECT g FROM generate_series(1, 5000) g",
        "ALTER TABLE unlogged SET LOGGED",
        "REINDEX TABLE updated",
        "VACUUM FULL steady",
    ),
    (  # only a few pages, of what the earlier ones left
        "UPDATE shrinks SET note = 'last' WHERE id % 40 = 0",
        "DELETE FROM elsewhere WHERE id % 4000 = 0",
        "CREATE TABLE of_log AS SELECT g AS id FROM generate_series(1, 500) g",
        "DROP TABLE created",
        "DROP DATABASE by_copy",
    ),
)


def test_a_merged_chain_is_what_pg_combinebackup_makes(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    server = make_postgres(18, summarize_wal="on", fsync="off")
    live = Live(server, local_repository, folder / "state")
    (folder / "space").mkdir()
    give(folder / "space")
    _run(server, _BEFORE, folder)
    chain = [live.take(BackupKind.FULL)]
    for statements in _BETWEEN:
        _run(server, statements, folder)
        chain.append(live.take(BackupKind.INCREMENTAL))
        assert chain[-1].parent == chain[-2].label, chain[-1].kind_reason
    server.destroy()

    ours = folder / "ours"
    ours.mkdir()
    control = unpack_chain([stored_link(local_repository, backup) for backup in chain], ours, advance=lambda _: None)

    inputs = [folder / backup.label for backup in chain]
    for backup, plain in zip(chain, inputs, strict=True):
        extract(local_repository, backup, plain)
        give(plain)
    _assert_the_chain_is_a_trial(inputs)
    oracle = folder / "oracle"
    command = [str(bin_dir() / "pg_combinebackup"), "--no-sync", "-o", str(oracle), *map(str, inputs)]
    Runner().run(Command(command, user=os_user()))

    expected = tree(oracle, ["backup_manifest"])  # a new one, which we have no use for
    assert control == expected.pop(PG_CONTROL)  # held back: whoever restores writes it last
    found = tree(ours)
    assert found.keys() == expected.keys()
    unlike = [path for path in found if found[path] != expected[path]]
    assert [path for path in unlike if not path.endswith("_vm")] == []
    assert (
        unlike
    )  # what the server's incrementals do not say of visibility maps is put right, and pg_combinebackup's not
    assert all(_only_lacks_bits(found[path], expected[path]) for path in unlike)


def _only_lacks_bits(ours: bytes | None, theirs: bytes | None) -> bool:
    """Beside the checksums of its pages."""
    assert ours is not None and theirs is not None
    within = (at for at in range(len(ours)) if at % 8192 not in (8, 9))
    return len(ours) == len(theirs) and all(ours[at] & ~theirs[at] == 0 for at in within)


def _run(server: EmbeddedPostgres, statements: tuple[str, ...], folder: Path) -> None:
    for statement in statements:
        server.psql(statement.format(copy=folder / "rows.copy", space=folder / "space"))


def _assert_the_chain_is_a_trial(inputs: list[Path]) -> None:
    """Every incremental changes a few blocks of a file; files shrink, and grow again after."""
    lengths: dict[str, int] = {}
    shrunk: set[str] = set()
    grown: set[str] = set()
    for number, plain in enumerate(inputs):
        few = 0
        for path in (path for path in plain.rglob("*") if path.is_file()):
            name = plain_name(str(path.relative_to(plain)))
            if not is_incremental(path.name):
                lengths[name] = path.stat().st_size // 8192
                continue
            header = _header(path)
            few += 0 < len(header.blocks) < header.length
            if header.length < lengths[name]:
                shrunk.add(name)
            elif header.length > lengths[name] and name in shrunk:
                grown.add(name)
            lengths[name] = header.length
        assert few or number == 0, plain
    assert grown


def _header(path: Path) -> IncrementalHeader:
    member = IncrementalMember(path.name, 8192)
    for _ in member.feed(memoryview(path.read_bytes())):
        pass
    return member.finish()
