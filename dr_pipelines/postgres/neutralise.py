"""What a restored server must not do: archive, replicate, wait for standbys, run jobs, listen. Settings as data,
and the files that carry them. They are written to the end of postgresql.auto.conf, where the last line wins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dr_pipelines.postgres.restore_plan import RecoveryTarget

OUTGOING_LIBRARIES = frozenset({"pg_cron", "pg_net", "pglogical", "bdr", "pg_partman_bgw"})
"""Preloaded libraries whose background workers act by themselves."""

NOTES_FILE = "dr_restored.txt"
BEGIN = "# --- dr: written by the restore; remove to let the server out again"
ORIGINAL = ".original"
RECOVERY = "# --- dr: recovery settings, removed when recovery has ended"
END = "# --- dr: end"
_OLD_TARGET = re.compile(r"^\s*recovery_target(_time|_lsn|_xid|_name)?\s*=")
_SETTING = re.compile(r"^\s*([A-Za-z_.]+)\s*=?\s*('(?:[^']|'')*'|[^#]*?)\s*(?:#.*)?$")


def configured_libraries(data_dir: Path) -> list[str]:
    """`shared_preload_libraries` as the files say; the last line wins."""
    found = _configured(data_dir).get("shared_preload_libraries", "")
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
        "external_pid_file": "",
        "log_directory": "log",
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
    notes = [*_complete_configuration(data_dir), *_detach(data_dir)]
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


def write_notes(data_dir: Path, quiet: Mapping[str, str], notes: Sequence[str]) -> None:
    """For the operator: what was switched off, and the way back."""
    (data_dir / NOTES_FILE).write_text(
        "\n".join(
            [
                "This server was restored. So that it reaches nothing outside, these settings were put at the end of",
                "postgresql.auto.conf, where they win over postgresql.conf:",
                "",
                *(f"  {line}" for line in _lines(quiet)),
                "",
                *notes,
                "",
                "To let it out: remove the lines from",
                f"  {BEGIN}",
                "to",
                f"  {END}",
                "and restart the server. Look at the subscriptions (pg_subscription) and scheduled jobs before:",
                "they start to run with max_logical_replication_workers and shared_preload_libraries.",
                f"postgresql.conf{ORIGINAL}, where there is one, is the configuration as it was in the backup.",
                "",
            ]
        )
    )


def missing_files(data_dir: Path, final_dir: Path) -> dict[str, str]:
    """Settings for files that the configuration names and this machine does not have."""
    configured = _configured(data_dir)
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
    """The lines of postgresql.conf that lead out of the data directory become comments: `data_directory`, which would
    start another server's files, and includes of what is not here. The original is kept beside it."""
    path = data_dir / "postgresql.conf"
    text = path.read_text(errors="surrogateescape")
    lines = [f"# dr: {line}" if _leads_out(line, data_dir) else line for line in text.splitlines()]
    changed = [line for line in lines if line.startswith("# dr: ")]
    if not changed:
        return []
    path.with_name(f"{path.name}{ORIGINAL}").write_text(text, errors="surrogateescape")
    path.write_text("\n".join([*lines, ""]), errors="surrogateescape")
    return [f"postgresql.conf: taken out because it leads out of the data directory: {line[6:]}" for line in changed]


def _leads_out(line: str, data_dir: Path) -> bool:
    match = _SETTING.match(line)
    if match is None:
        return False
    name, value = match[1].lower(), match[2].strip("'")
    return name == "data_directory" or (name in ("include", "include_dir") and not (data_dir / value).exists())


def _configured(data_dir: Path) -> dict[str, str]:
    """The settings as the files say, with what they include; the last line wins."""
    found: dict[str, str] = {}
    for path in (data_dir / "postgresql.conf", data_dir / "postgresql.auto.conf"):
        found |= _settings_of(path, depth=0)
    return found


def _settings_of(path: Path, depth: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() and depth < 10 else ():
        match = _SETTING.match(line)
        if match is None:
            continue
        name, value = match[1].lower(), match[2].strip("'")
        if name in ("include", "include_if_exists"):
            found |= _settings_of(path.parent / value, depth + 1)
        elif name == "include_dir":
            for inner in sorted((path.parent / value).glob("[!.]*.conf")):
                found |= _settings_of(inner, depth + 1)
        else:
            found[name] = value
    return found


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
