"""What a restored server must not do: archive, replicate, wait for standbys, run jobs, listen. Settings as data,
and the files that carry them. They are written to the end of postgresql.auto.conf, where the last line wins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from dr_pipelines.postgres.restore_plan import RecoveryTarget

OUTGOING_LIBRARIES = frozenset({"pg_cron", "pg_net", "pglogical", "bdr", "pg_partman_bgw"})
"""Preloaded libraries whose background workers act by themselves."""

BEGIN = "# --- dr: written by the restore; remove to let the server out again"
RECOVERY = "# --- dr: recovery settings, removed when recovery has ended"
END = "# --- dr: end"
_OLD_TARGET = re.compile(r"^\s*recovery_target(_time|_lsn|_xid|_name)?\s*=")
_SETTING = re.compile(r"^\s*([A-Za-z_.]+)\s*=?\s*(.*?)\s*(?:#.*)?$")


def configured_libraries(data_dir: Path) -> list[str]:
    """`shared_preload_libraries` as the files say; the last line wins."""
    found = ""
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        path = data_dir / name
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            match = _SETTING.match(line)
            if match and match[1].lower() == "shared_preload_libraries":
                found = match[2].strip("'")
    return [part.strip().strip('"') for part in found.split(",") if part.strip()]


def quiet_settings(libraries: list[str], version_num: int) -> dict[str, str]:
    """Stay after recovery: nothing reaches outside until a person lets it."""
    kept = [library for library in libraries if Path(library).name not in OUTGOING_LIBRARIES]
    return {
        "archive_mode": "off",
        "archive_command": "",
        "synchronous_standby_names": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "shared_preload_libraries": ", ".join(kept),
        "max_logical_replication_workers": "0",
        **({"archive_library": ""} if version_num >= 15_00_00 else {}),
    }


def recovery_settings(
    target: RecoveryTarget, *, timeline: int, restore_command: str, socket_dir: Path, port: int
) -> dict[str, str]:
    """For recovery only. Promotion at the target; only a private socket until then."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        "port": str(port),
        "hot_standby": "off",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "restore_command": restore_command,
        "recovery_target_timeline": str(timeline),
        "recovery_target_action": "promote",
        "recovery_target_inclusive": "on" if target.inclusive else "off",
    }
    chosen = "recovery_target" if target.kind == "immediate" else f"recovery_target_{target.kind}"
    if target.kind != "latest":
        settings[chosen] = _target_value(target)
    return settings


def write_settings(data_dir: Path, quiet: Mapping[str, str], recovery: Mapping[str, str]) -> list[str]:
    """Appends both blocks, writes recovery.signal and what a server needs when its configuration lies outside of the
    data directory. Returns notes for the report."""
    notes = _complete_configuration(data_dir)
    (data_dir / "standby.signal").unlink(missing_ok=True)
    path = data_dir / "postgresql.auto.conf"
    text = _without_blocks(path.read_text(errors="surrogateescape") if path.exists() else "")
    lines = [BEGIN, *_lines(quiet), END, RECOVERY, *_lines(recovery), END, ""]
    path.write_text(text + "\n".join(lines), errors="surrogateescape")
    (data_dir / "recovery.signal").touch()
    return notes


def remove_recovery_settings(data_dir: Path, *, keep: Mapping[str, str]) -> None:
    """After promotion: the recovery block goes, `keep` (where the server listens) joins the quiet block."""
    path = data_dir / "postgresql.auto.conf"
    text = _without_blocks(path.read_text(errors="surrogateescape"), (RECOVERY,))
    path.write_text(text + "\n".join([RECOVERY, *_lines(keep), END, ""]) if keep else text, errors="surrogateescape")


def _lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]


def _target_value(target: RecoveryTarget) -> str:
    if isinstance(target.value, datetime):
        return target.value.astimezone(UTC).isoformat(sep=" ")
    return "immediate" if target.kind == "immediate" else str(target.value)


def _without_blocks(text: str, starts: tuple[str, ...] = (BEGIN, RECOVERY)) -> str:
    kept, inside = [], False
    for line in text.splitlines():
        inside = inside or line in starts
        # A server that was itself restored may carry a target, and two are an error, even when one is empty.
        if not inside and not _OLD_TARGET.match(line):
            kept.append(line)
        inside = inside and line != END
    return "".join(f"{line}\n" for line in kept)


def _complete_configuration(data_dir: Path) -> list[str]:
    notes = []
    minimal = {
        "postgresql.conf": "# The server's own file was outside of its data directory and is not in the backup.\n",
        "pg_hba.conf": "# The server's own file is not in the backup: only local connections.\nlocal all all trust\n",
        "pg_ident.conf": "",
    }
    for name, text in minimal.items():
        if not (data_dir / name).exists():
            (data_dir / name).write_text(text)
            notes.append(f"{name} was not in the backup; a minimal one was written")
    return notes
