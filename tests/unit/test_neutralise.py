"""What of a server's configuration is understood and switched off."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres import configuration, neutralise
from dr_pipelines.postgres.restore_plan import LATEST


def _written(data_dir: Path) -> list[str]:
    recovery = neutralise.recovery_settings(
        LATEST, timeline=Timeline(1), action="promote", restore_command="x", socket_dir=Path("/s"), port=1
    )
    minimal = neutralise.minimal_files({"max_connections": "50"}, account="postgres", superuser="admin")
    return neutralise.write_settings(data_dir, neutralise.quiet_settings([], 18_00_00), recovery, minimal)


def test_libraries_are_found_in_included_files_and_comments_are_not_values(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "postgresql.conf").write_text("shared_preload_libraries = 'old'\ninclude_dir 'conf.d'\n")
    (tmp_path / "conf.d" / "10.conf").write_text("shared_preload_libraries = 'pg_cron, \"mine\"' # 'not this'\n")
    assert neutralise.configured_libraries(tmp_path) == ["pg_cron", "mine"]
    assert neutralise.quiet_settings(["pg_cron", "mine"], 18_00_00)["shared_preload_libraries"] == "mine"


def test_lines_that_lead_to_the_live_server_become_comments_and_the_original_stays(tmp_path: Path) -> None:
    text = "data_directory = '/live'\ninclude '/nowhere.conf'\nwork_mem = '4MB'\n"
    (tmp_path / "postgresql.conf").write_text(text)
    notes = _written(tmp_path)
    lines = (tmp_path / "postgresql.conf").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["work_mem = '4MB'"]
    assert (tmp_path / "postgresql.conf.original").read_text() == text
    assert sum("leads out" in note for note in notes) == 2


def test_without_any_configuration_a_minimal_one_is_written(tmp_path: Path) -> None:
    _written(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", "recovery.signal")
    }
    assert "max_connections = '50'" in (tmp_path / "postgresql.conf").read_text()
    assert (tmp_path / "pg_ident.conf").read_text() == 'dr "postgres" "admin"\n'


def test_a_line_that_leads_to_the_live_server_is_taken_out_of_an_included_file_too(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "postgresql.conf").write_text("include_dir 'conf.d'\n")
    (tmp_path / "conf.d" / "10.conf").write_text("data_directory = '/live'\nwork_mem = '4MB'\n")
    assert any("/live" in note for note in _written(tmp_path))
    assert configuration.read(tmp_path)["work_mem"] == "4MB"
    assert "data_directory" not in configuration.read(tmp_path)
    assert (tmp_path / "postgresql.conf").read_text() == "include_dir 'conf.d'\n"


def test_a_library_counts_as_missing_only_where_libraries_are_known_to_lie(tmp_path: Path) -> None:
    assert neutralise.missing_libraries(["mine"], [tmp_path]) == []
    (tmp_path / "pgoutput.so").touch()
    assert neutralise.missing_libraries(["mine"], [tmp_path]) == ["mine"]
    (tmp_path / "mine.so").touch()
    assert neutralise.missing_libraries(["mine"], [tmp_path]) == []


def test_recovery_settings_go_and_the_quiet_ones_stay(tmp_path: Path) -> None:
    _written(tmp_path)
    neutralise.settle(tmp_path, neutralise.quiet_settings([], 18_00_00))
    text = (tmp_path / "postgresql.auto.conf").read_text()
    assert "archive_mode = 'off'" in text
    assert "recovery_target" not in text
