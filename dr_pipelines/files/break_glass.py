"""What lies beside every snapshot so that it can be restored without this program: a short script that needs pyarrow,
and the programs age and zstd; and how to use it. Pure; it names no secret."""

from __future__ import annotations

SCRIPT = r'''#!/usr/bin/env python3
"""Restores a snapshot of files without dr. Needs Python 3.9, pyarrow (pip install pyarrow), zstd and age.

usage: restore.py TARGET [IDENTITY]      with the repository copied, its names kept, around this very file
"""
import hashlib, json, os, pathlib, subprocess, sys
import pyarrow as pa, pyarrow.parquet as pq

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parents[3]


def stored(about):
    data = (ROOT / about["key"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{about['key']} does not match its SHA-256")
    if about["key"].endswith(".age"):
        data = subprocess.run(["age", "-d", "-i", IDENTITY], input=data, stdout=subprocess.PIPE, check=True).stdout
    return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


def archives_of(manifest):
    lists = [json.loads(stored(about))["archives"] for about in manifest["lists"]]
    return {one["name"]: one for archives in lists for one in archives}


def rows(manifest):
    found = {}
    for about in filter(None, (manifest["table"], manifest["changes"])):
        for batch in pq.read_table(pa.BufferReader(stored(about))).to_batches():
            for row in batch.to_pylist():
                found[row["path"]] = row
    return [row for _, row in sorted(found.items()) if row["type"] != "gone"]


def place(path):
    if not path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise ValueError("the path would leave the target")
    return TARGET + b"/" + path


def dress(path, row):
    if os.geteuid() == 0 and row["uid"] is not None:
        os.chown(path, row["uid"], row["gid"], follow_symlinks=False)
    if row["mode"] is not None and row["type"] != "link":
        os.chmod(path, row["mode"])
    if row["mtime_ns"] is not None:
        os.utime(path, ns=(row["mtime_ns"], row["mtime_ns"]), follow_symlinks=False)


class Archive:
    """One pack of one archive is in memory at a time."""

    def __init__(self):
        self.of, self.data = None, b""

    def read(self, archive, offset, size):
        while size > 0:
            number, at = divmod(offset, archive["pack_size"])
            if self.of != (archive["name"], number):
                self.data, self.of = stored(archive["packs"][number]), (archive["name"], number)
            piece = self.data[at : at + size]
            if not piece:
                raise ValueError("its archive is too short")
            yield piece
            offset, size = offset + len(piece), size - len(piece)


def write(row, archives, reader):
    if row["error"] or (row["size"] and row["archive"] not in archives):
        raise ValueError(row["error"] or "no archive of the snapshot has it")
    path, digest = place(row["path"]), hashlib.sha256()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        try:
            for piece in reader.read(archives.get(row["archive"]), row["offset"], row["size"]):
                digest.update(piece)
                file.write(piece)
            if row["size"] and digest.digest() != row["sha256"]:
                raise ValueError("its content does not match its SHA-256")
        except BaseException:
            os.unlink(path)
            raise
    dress(path, row)


def link(row):
    os.makedirs(os.path.dirname(place(row["path"])), exist_ok=True)
    os.symlink(row["target"], place(row["path"]))
    dress(place(row["path"]), row)


def main():
    manifest = json.loads((HERE / "manifest.json").read_text())
    archives, reader, failed = archives_of(manifest), Archive(), 0
    table = rows(manifest)
    os.makedirs(TARGET)  # it must be new
    some = lambda kind: [row for row in table if row["type"] == kind]
    files = sorted(some("file"), key=lambda row: (row["archive"] or "", row["offset"] or 0))
    jobs = [(lambda row: os.makedirs(place(row["path"]), exist_ok=True), some("directory"))]
    jobs += [(lambda row: write(row, archives, reader), files), (link, some("link"))]  # links last: none is followed
    jobs += [(lambda row: dress(place(row["path"]), row), some("directory")[::-1])]
    for job, of in jobs:
        for row in of:
            try:
                job(row)
            except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
                failed += 1
                print(f"not restored: {os.fsdecode(row['path'])!r}: {error}", file=sys.stderr)
    print(f"{len(table)} paths, {failed} of them not restored, into {sys.argv[1]}")
    return 1 if failed else 0


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
TARGET, IDENTITY = os.fsencode(os.path.abspath(sys.argv[1])), (sys.argv + [""])[2]
sys.exit(main())
'''

_README = """# Restoring snapshot {label} of {file_set} without dr

Needed: Python 3.9 with pyarrow (`pip install pyarrow`), the programs `zstd` and `age`, and {identity}.

1. Copy what the snapshot needs, names kept, with the store's own tool (`aws s3 cp --recursive`, `rclone copy`,
   `azcopy`): `files/{file_set}/` of the repository. `manifest.json` beside this folder names objects with their
   SHA-256: `table`, `changes` and `lists`; these (`zstd -dc FILE`, no key is needed) name the packs of the archives.
2. `python3 files/{file_set}/snapshots/{label}/break-glass/restore.py TARGET [IDENTITY]`

TARGET is a directory that does not exist yet, IDENTITY the file with the age identity. Each object and each file is
held against its SHA-256; what cannot be restored is named, and the exit code is then 1. Hard links become files of
their own.

By hand: a table is Parquet, `zstd -dc FILE` (after `age -d -i IDENTITY`), a row a file with its `archive` and `offset`;
an archive is a tar, its packs one after the other:

```sh
for p in files/{file_set}/archives/ARCHIVE/*; do age -d -i IDENTITY "$p" | zstd -dc; done | tar t
```
"""


def bundle(file_set: str, label: str, recipients: tuple[str, ...]) -> dict[str, bytes]:
    """Name → content."""
    identity = "an identity of " + " or ".join(recipients) if recipients else "no key (it is not encrypted)"
    readme = _README.format(file_set=file_set, label=label, identity=identity)
    return {"README.md": readme.encode(), "restore.py": SCRIPT.encode()}
