"""The break-glass bundle: what lies beside every backup so that it can be restored without this program.

README.md with the commands for this very backup, SHA256SUMS and restore.sh, for stock tools: sh, sha256sum, age, zstd,
tar and PostgreSQL's own programs. Pure functions from manifests to bytes; they name no secret.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dr_pipelines.repository.layout import WalLayout
from dr_pipelines.repository.manifest import BackupManifest

_SCRIPT = r"""#!/bin/sh
# Restores @label@ of server @server@ with stock tools: sha256sum, age, zstd, tar@tools@.
# usage: sh restore.sh IDENTITY BACKUPS TARGET [WAL]
#   IDENTITY  file with the age identity (any word when the backup is not encrypted)
#   BACKUPS   directory with one directory for each label: @labels@
#   TARGET    new data directory; tablespaces are put into TARGET.tablespaces/<oid>
#   WAL       directory with the downloaded WAL; recovery then goes on to its end
set -eu

labels='@labels@'
segment_size=@segment_size@

die() { echo "restore.sh: $*" >&2; exit 1; }
[ $# -ge 3 ] || die "usage: sh restore.sh IDENTITY BACKUPS TARGET [WAL]"
identity=$1 backups=$2 target=$3 wal=${4-}
[ ! -e "$target" ] || die "$target exists; name a new directory"
[ ! -e "$target.work" ] || die "$target.work exists, perhaps of an earlier attempt; remove it"
umask 077
mkdir -p "$target.work"
work=$(cd "$target.work" && pwd)
target=${work%.work}

# A pipe shows only its last program's exit code, so the others leave a file.
fail() { : > "$work/failed"; }
decode() { @decode@; }
check() { [ ! -e "$work/failed" ] || die "$1"; }

for label in $labels; do
    (cd "$backups/$label" && sha256sum -c --quiet break-glass/SHA256SUMS) || die "$label is damaged or not complete"
done

for label in $labels; do
    mkdir "$work/$label"
    for pack in "$backups/$label"/packs/*; do decode "$pack" || fail; done | tar -x -f - -C "$work/$label" || fail
    check "$label cannot be unpacked: wrong identity, or the disk is full"
    decode "$backups/$label"/backup_manifest.zst* > "$work/$label/backup_manifest" || fail
    check "the backup_manifest of $label cannot be decoded"
    rm -f "$work/$label/tablespace_map"
done

@combine@
chmod 700 "$work/@label@.restored"

for tablespace in "$work/@label@.restored"/pg_tblspc/*; do
    [ -d "$tablespace" ] || continue
    mkdir -p "$target.tablespaces"
    mv "$tablespace" "$target.tablespaces/"
    ln -s "$target.tablespaces/${tablespace##*/}" "$tablespace"
done
mv "$work/@label@.restored" "$target"

# The restored server must not write into the archive of the live one, and must not wait for its standbys.
cat >> "$target/postgresql.auto.conf" << 'END'
archive_mode = 'off'
synchronous_standby_names = ''
primary_conninfo = ''
primary_slot_name = ''
END
rm -f "$target/standby.signal"

if [ -n "$wal" ]; then
    mkdir "$target.wal"
    find "$wal" -type f -name '*.zst*' | LC_ALL=C sort > "$work/wal"
    while read -r file; do
        name=${file##*/}
        plain=${name%.zst*}
        sum=${plain##*.}
        plain=${plain%.*}
        [ "$(sha256sum < "$file")" = "$sum  -" ] || die "$file does not match the SHA-256 in its name"
        case $plain in
            # Heads of an open segment sort by their end, so the longest comes last and stays.
            *.partial) plain=${plain%%.*}; out="$target.wal/$plain.partial" ;;
            *) out="$target.wal/$plain" ;;
        esac
        decode "$file" > "$out" || fail
        check "$file cannot be decoded"
    done < "$work/wal"
    for partial in "$target.wal"/*.partial; do
        [ -e "$partial" ] || continue
        if [ -e "${partial%.partial}" ]; then rm "$partial"; continue; fi
        truncate -s "$segment_size" "$partial"
        mv "$partial" "${partial%.partial}"
    done
    echo "restore_command = 'test -e \"$target.wal/%f\" || exit 1; cp \"$target.wal/%f\" \"%p\" || exit 200'" \
        >> "$target/postgresql.auto.conf"
    : > "$target/recovery.signal"
fi

rm -r "$work"
echo "restored into $target"
[ -n "$wal" ] || echo "it needs WAL to start: see README.md"
"""

_README = """# Restoring {label} of {server} without dr

{what} taken from PostgreSQL {version} on {taken_on}, finished {finished}. Everything below uses stock tools:
`sh`, `sha256sum`, `age`, `zstd`, `tar`, `find`, `truncate`, and the programs of PostgreSQL {major}.

Chain, oldest first:

{chain}

Keys below are from the root of the repository (the bucket, or its prefix in the bucket).

## 1. Download

With the store's own tool (`aws s3 cp --recursive`, `rclone copy`, `azcopy`), keep the names:

{downloads}

{wal} is all WAL of this server. Needed is timeline {timeline} from {start} at least to {stop}
(segments of {segment_size} bytes) and, for a later point, everything after it and every `.history` file.

## 2. Set the variables

```sh
IDENTITY=identity.txt       # {identity}
BACKUPS=backups             # the directories of step 1, one for each label
WAL=wal                     # the WAL of step 1
TARGET=/var/lib/postgresql/restored
```

## 3. Restore

```sh
sh "$BACKUPS/{label}/break-glass/restore.sh" "$IDENTITY" "$BACKUPS" "$TARGET" "$WAL"
```

The script does what follows, and checks each step:

```sh
{checks}
{unpacks}
{combine}
```

{tablespaces}
## 4. WAL

A WAL object is named `<segment>.<SHA-256>{suffix}`, the head of an open segment
`<segment>.<end>.partial.<SHA-256>{suffix}`.
The script decodes all of them into `$TARGET.wal` (`{decode_wal}`), pads the longest head of the last
segment with zeros to {segment_size} bytes, and writes to `$TARGET/postgresql.auto.conf`

```
restore_command = 'test -e "$TARGET.wal/%f" || exit 1; cp "$TARGET.wal/%f" "%p" || exit 200'
archive_mode = 'off'
synchronous_standby_names = ''
```

and makes the empty file `$TARGET/recovery.signal`. To stop earlier, add before the start one of
`recovery_target_time`, `recovery_target_lsn`, `recovery_target_name`, `recovery_target_xid`, and
`recovery_target_action = 'promote'`.

## 5. Start

PostgreSQL does not run as root: give `$TARGET`, `$TARGET.wal` and `$TARGET.tablespaces` to its account first.
If `postgresql.conf` and `pg_hba.conf` lay outside of the data directory (Debian: `/etc/postgresql`), make them anew.

```sh
chown -R postgres: "$TARGET" "$TARGET".*
su postgres -c "pg_ctl -D '$TARGET' -w -t 86400 start"
```

`pg_ctl` returns as soon as the server can be read from; recovery is over when `SELECT pg_is_in_recovery()` answers `f`.
Scheduled jobs (pg_cron), subscriptions and foreign servers of the restored server act as soon as it runs: keep it off
the network until you have looked (`listen_addresses = ''`).
"""

_NO_MAPS = (
    "# Merged visibility maps may promise too much: index-only scans would show deleted rows. VACUUM makes them anew.\n"
)


def bundle(chain: Sequence[BackupManifest]) -> dict[str, bytes]:
    """Name → content, for the last backup of `chain` (full first)."""
    files = {"README.md": readme(chain), "SHA256SUMS": checksums(chain[-1]), "restore.sh": script(chain)}
    return {name: text.encode() for name, text in files.items()}


def checksums(manifest: BackupManifest) -> str:
    """For `sha256sum -c` in the backup's directory."""
    stored = (*manifest.archive.packs, manifest.backup_manifest, manifest.index)
    return "".join(f"{item.sha256}  {item.key.removeprefix(manifest.layout.prefix)}\n" for item in stored)


def script(chain: Sequence[BackupManifest]) -> str:
    last = chain[-1]
    decode = 'zstd -dcq < "$1"'
    if last.encoding.recipients:
        decode = '{ age -d -i "$identity" "$1" || fail; } | zstd -dcq'
    incremental = len(chain) > 1
    result = f'"$work/{last.label}.restored"'
    inputs = " ".join(f'"$work/{link.label}"' for link in chain)
    values = {
        "label": last.label,
        "server": last.server,
        "labels": " ".join(link.label for link in chain),
        "segment_size": str(last.segment_size),
        "decode": decode,
        "tools": ", pg_combinebackup" if incremental else "",
        "combine": f"pg_combinebackup -o {result} {inputs}\n{_NO_MAPS}find {result} -type f -name '*_vm' -delete"
        if incremental
        else f"mv {inputs} {result}",
    }
    text = _SCRIPT
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def readme(chain: Sequence[BackupManifest]) -> str:
    last = chain[-1]
    encrypted = bool(last.encoding.recipients)
    key = 'age -d -i "$IDENTITY" "$p" | zstd -dc' if encrypted else 'zstd -dc "$p"'
    labels = [link.label for link in chain]
    staged = " ".join(f'"$TARGET.work/{label}"' for label in labels)
    return _README.format(
        label=last.label,
        server=last.server,
        what="An incremental backup" if len(chain) > 1 else "A full backup",
        version=last.postgres_version,
        major=last.postgres_version_num // 10000,
        taken_on=last.taken_on,
        finished=f"{last.finished_at:%Y-%m-%d %H:%M:%S} UTC",
        chain="\n".join(f"- {link.label} ({link.kind}, {link.stored_size} bytes)" for link in chain),
        downloads="\n".join(
            [f"- `{link.layout.prefix}` to `backups/{link.label}/`" for link in chain]
            + [f"- `{WalLayout(last.server, last.system_id).prefix}` to `wal/`"]
        ),
        wal=f"`{WalLayout(last.server, last.system_id).prefix}`",
        timeline=last.timeline.id,
        start=last.start_lsn,
        stop=last.stop_lsn,
        segment_size=last.segment_size,
        identity="an identity of " + " or ".join(last.encoding.recipients) if encrypted else "not used: not encrypted",
        checks="\n".join(f'(cd "$BACKUPS/{n}" && sha256sum -c break-glass/SHA256SUMS)' for n in labels),
        unpacks="\n".join(_unpack(n, key, last.encoding.suffix) for n in labels),
        combine=f'pg_combinebackup -o "$TARGET" {staged}\n{_NO_MAPS}find "$TARGET" -type f -name "*_vm" -delete'
        if len(chain) > 1
        else f'mv {staged} "$TARGET"',
        tablespaces=_tablespaces(last),
        suffix=last.encoding.suffix,
        decode_wal=key.replace('"$p"', "FILE").replace('"$IDENTITY"', "IDENTITY"),
    )


def _unpack(label: str, decode: str, suffix: str) -> str:
    return (
        f'mkdir -p -m 700 "$TARGET.work/{label}"\n'
        f'for p in "$BACKUPS/{label}"/packs/*; do {decode}; done | tar x -C "$TARGET.work/{label}"\n'
        f'p="$BACKUPS/{label}/backup_manifest{suffix}"; {decode} > "$TARGET.work/{label}/backup_manifest"'
    )


def _tablespaces(manifest: BackupManifest) -> str:
    if not manifest.tablespaces:
        return ""
    lines = "\n".join(
        f'mv "$TARGET/pg_tblspc/{t.oid}" "$TARGET.tablespaces/" && '
        f'ln -s "$TARGET.tablespaces/{t.oid}" "$TARGET/pg_tblspc/{t.oid}"  # was at {shlex.quote(t.location)}'
        for t in manifest.tablespaces
    )
    return (
        "Tablespaces lie under `pg_tblspc/<oid>` in the archive:\n\n"
        f'```sh\nmkdir "$TARGET.tablespaces"\n{lines}\n```\n\n'
    )
