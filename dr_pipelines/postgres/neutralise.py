"""What a restored server must not do: archive, replicate, wait for standbys, run jobs, listen. Settings as data,
and the files that carry them. They are written to the end of postgresql.auto.conf, where the last line wins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres import configuration
from dr_pipelines.postgres.configuration import written
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RecoveryAction

OUTGOING_LIBRARIES = frozenset({"pg_cron", "pg_net", "pglogical", "bdr", "pg_partman_bgw"})
"""Preloaded libraries whose background workers act by themselves."""

NOTES_FILE = "dr_restored.txt"
BEGIN = "# --- dr: written by the restore; remove to let the server out again"
ORIGINAL = ".original"
RECOVERY = "# --- dr: recovery settings, removed when recovery has ended"
END = "# --- dr: end"
_OLD_TARGET = re.compile(r"^\s*recovery_target(_time|_lsn|_xid|_name)?\s*=")


def configured_libraries(data_dir: Path) -> list[str]:
    """`shared_preload_libraries` as the files say; the last line wins."""
    found = configuration.read(data_dir).get("shared_preload_libraries", "")
    return [part.strip().strip('"') for part in found.split(",") if part.strip()]


def missing_libraries(libraries: Sequence[str], library_dirs: Sequence[Path]) -> list[str]:
    """Those that are not installed here; none where it is not known where libraries lie."""
    there = [folder for folder in library_dirs if (folder / "pgoutput.so").exists()]
    return [
        name
        for name in libraries
        if there and not any((d / f"{name}.so").exists() or (d / name).exists() for d in there)
    ]


def quiet_settings(libraries: list[str], version_num: int) -> dict[str, str]:
    """Stay after recovery: nothing reaches outside until a person lets it."""
    kept = [library for library in libraries if Path(library).name not in OUTGOING_LIBRARIES]
    return {
        "archive_mode": "off",
        "archive_command": "",
        "synchronous_standby_names": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "restore_command": "",
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "cron.launch_active_jobs": "off",
        "listen_addresses": "localhost",
        "unix_socket_directories": "/tmp",
        "external_pid_file": "external.pid",  # in the data directory
        "log_directory": "log",
        "shared_preload_libraries": ", ".join(kept),
        "max_logical_replication_workers": "0",
        **({"archive_library": ""} if version_num >= 15_00_00 else {}),
    }


def target_settings(target: RecoveryTarget, *, timeline: Timeline, action: RecoveryAction) -> dict[str, str]:
    """Where recovery stops, and what happens there."""
    settings = {
        "recovery_target_timeline": str(timeline.id),
        "recovery_target_action": action,
        "recovery_target_inclusive": "on" if target.inclusive else "off",
    }
    if target.kind != "latest":
        chosen = "recovery_target" if target.kind == "immediate" else f"recovery_target_{target.kind}"
        settings[chosen] = _target_value(target)
    return settings


def recovery_settings(
    target: RecoveryTarget,
    *,
    timeline: Timeline,
    action: RecoveryAction,
    restore_command: str,
    socket_dir: Path,
    port: int,
) -> dict[str, str]:
    """For our own recovery only: nothing listens but a private socket. At the target the server is promoted, or waits
    there to be asked where it is."""
    stays = action != "promote"
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        "port": str(port),
        "hot_standby": "on" if stays else "off",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "restore_command": restore_command,
        **target_settings(target, timeline=timeline, action="pause" if stays else "promote"),
    }


def staying_settings(target: RecoveryTarget, *, timeline: Timeline, action: RecoveryAction) -> dict[str, str]:
    """For a server that stays at its target, in recovery. All WAL up to there lies in its pg_wal: `false` says that
    there is no other, and with a target the end of WAL is an error and never a promotion."""
    return {
        **target_settings(target, timeline=timeline, action=action),
        "hot_standby": "on",
        "restore_command": "false",
    }


def minimal_files(recorded: Mapping[str, str], *, account: str, superuser: str) -> dict[str, list[str]]:
    """The configuration of a server whose own was not in its backup, file by file: `recorded` is what its control file
    knows of it. The `account` that it runs as may be its `superuser`; everybody else needs a password."""
    return {
        "postgresql.conf": ["# The server's own file is not in the backup. From its control file:", *written(recorded)],
        "pg_hba.conf": [
            "# The server's own file is not in the backup.",
            f'local all "{superuser}" peer map=dr',
            "local all all scram-sha-256",
            "host all all 127.0.0.1/32 scram-sha-256",
            "host all all ::1/128 scram-sha-256",
        ],
        "pg_ident.conf": [f'dr "{account}" "{superuser}"'],
    }


def write_settings(
    data_dir: Path, quiet: Mapping[str, str], recovery: Mapping[str, str], minimal: Mapping[str, Sequence[str]]
) -> list[str]:
    """Writes both blocks, recovery.signal, and of the `minimal_files` what is missing because it lay outside of the
    data directory. Returns notes for the report."""
    notes = [*_add_missing(data_dir, minimal), *_detach(data_dir)]
    (data_dir / "standby.signal").unlink(missing_ok=True)
    _write_blocks(data_dir, [BEGIN, *written(quiet), END, RECOVERY, *written(recovery), END])
    (data_dir / "recovery.signal").touch()
    return notes


def settle(data_dir: Path, settings: Mapping[str, str]) -> None:
    """After recovery: only `settings` stay."""
    _write_blocks(data_dir, [BEGIN, *written(settings), END])


def write_notes(data_dir: Path, settings: Mapping[str, str], notes: Sequence[str]) -> Path:
    """For the operator: what was switched off, and the way back. Returns the file."""
    path = data_dir / NOTES_FILE
    path.write_text(
        "\n".join(
            [
                "This server was restored. So that it reaches nothing outside, these settings were put at the end of",
                "postgresql.auto.conf, where they win over postgresql.conf:",
                "",
                *(f"  {line}" for line in written(settings)),
                "",
                *notes,
                "",
                "To let it out: promote it, if it stays in recovery at its target, remove the lines from",
                f"  {BEGIN}",
                "to",
                f"  {END}",
                "and restart the server. Scheduled jobs run from then on (shared_preload_libraries); subscriptions do",
                "once they are enabled. Where synchronous_standby_names is set, commits wait until `dr wal stream` or",
                "a standby is connected to this server.",
                f"postgresql.conf{ORIGINAL}, where there is one, is the configuration as it was in the backup.",
                "",
            ]
        )
    )
    return path


def missing_files(data_dir: Path, final_dir: Path) -> dict[str, str]:
    """Settings for files that the configuration names and this machine does not have."""
    configured = configuration.read(data_dir)
    settings = {}
    for name, plain in (("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")):
        if name in configured and not Path(configured[name]).exists():
            settings[name] = str(final_dir / plain)
    certificates = [configured.get("ssl_cert_file", "server.crt"), configured.get("ssl_key_file", "server.key")]
    certificates += [configured[name] for name in ("ssl_ca_file", "ssl_crl_file") if configured.get(name)]
    if configured.get("ssl", "off").lower() in ("on", "true", "yes", "1") and not all(
        (data_dir / name).exists() for name in certificates
    ):
        settings["ssl"] = "off"
    return settings


def _detach(data_dir: Path) -> list[str]:
    """Lines that lead out of the data directory become comments, in every file of the configuration that lies in it:
    `data_directory`, which would start another server's files, and includes of what is not here. The originals are kept
    beside them."""
    notes: list[str] = []
    for path in list(configuration.files(data_dir / "postgresql.conf")):
        lines = configuration.lines_of(path)
        leading = [line for line in lines if _leads_out(line, path.parent)]
        if leading and path.resolve().is_relative_to(data_dir.resolve()):
            path.rename(path.with_name(f"{path.name}{ORIGINAL}"))
            kept = [f"# dr: {line}" if line in leading else line for line in lines]
            path.write_text("\n".join([*kept, ""]), errors="surrogateescape")
            notes += [f"{path.name}: taken out because it leads out of the data directory: {line}" for line in leading]
    return notes


def _leads_out(line: str, folder: Path) -> bool:
    match configuration.setting(line):
        case ("data_directory", _):
            return True
        case (("include" | "include_dir"), value):
            return not (folder / value).exists()
    return False


def _target_value(target: RecoveryTarget) -> str:
    if isinstance(target.value, datetime):
        return target.value.astimezone(UTC).isoformat(sep=" ")
    return "immediate" if target.kind == "immediate" else str(target.value)


def _write_blocks(data_dir: Path, lines: Sequence[str]) -> None:
    """At the end of postgresql.auto.conf, in the place of what an earlier restore wrote there."""
    path = data_dir / "postgresql.auto.conf"
    kept = _without_blocks(configuration.lines_of(path) if path.exists() else [])
    path.write_text("\n".join([*kept, *lines, ""]), errors="surrogateescape")


def _without_blocks(lines: Sequence[str]) -> list[str]:
    kept, inside = [], False
    for line in lines:
        inside = inside or line in (BEGIN, RECOVERY)
        # A server that was itself restored may carry a target, and two are an error, even when one is empty.
        if not inside and not _OLD_TARGET.match(line):
            kept.append(line)
        inside = inside and line != END
    return kept


def _add_missing(data_dir: Path, minimal: Mapping[str, Sequence[str]]) -> list[str]:
    missing = [name for name in minimal if not (data_dir / name).exists()]
    for name in missing:
        (data_dir / name).write_text("\n".join([*minimal[name], ""]))
    return [f"{name} was not in the backup; a minimal one was written" for name in missing]
