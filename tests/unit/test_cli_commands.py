"""The `dr` command as a person or a program calls it, without any server: words, exit codes, one JSON document."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from pathlib import Path

import click
import pytest
import typer
import yaml

from dr_pipelines import __version__
from dr_pipelines.cli.app import EXIT_CODES, make_app
from dr_pipelines.commands import Completed
from dr_pipelines.errors import DrError
from dr_pipelines.repository.encryption import Identity
from tests.support import forked

SECRET = "never-to-be-printed"
PLAN = {
    "version": 1,
    "name": "test",
    "state_dir": "state",
    "storage": {"disk": {"type": "local", "path": "disk"}},
    "encryption": "none",
    "databases": {
        "shop": {
            "connection": {"host": "127.0.0.1", "port": 1, "password": "${ENV:DR_TEST_PASSWORD}"},
            "schedule": {"full": "daily", "incremental": "hourly"},
            "storage": {"primary": "disk"},
        }
    },
}


class Dr:
    """Runs `dr` in a folder with a plan in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "DR_PLAN": str(folder / "plan.yaml"), "DR_TEST_PASSWORD": SECRET}

    def __call__(self, *argv: str) -> Completed:
        done = forked.dr(*argv, env=self.env, cwd=self.folder)
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done


@pytest.fixture
def dr(tmp_path: Path) -> Dr:
    (tmp_path / "plan.yaml").write_text(yaml.dump(PLAN))
    (tmp_path / "disk").mkdir()
    return Dr(tmp_path)


def test_a_right_plan_is_said_to_be_right(dr: Dr) -> None:
    assert dr("plan", "check").returncode == 0
    told = dr("plan", "check", "--json")
    assert json.loads(told.stdout)["ok"] is True
    assert told.stderr == ""


def test_it_says_its_version(dr: Dr) -> None:
    told = dr("--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"dr {__version__}\n", "")


def test_a_mistake_is_named_by_its_path_with_the_plan_s_exit_code(dr: Dr) -> None:
    (dr.folder / "plan.yaml").write_text(yaml.dump({**PLAN, "databasse": {}}))
    done = dr("plan", "check")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "databasse" in done.stderr
    assert "did you mean 'databases'" in done.stderr
    assert "hint:" in done.stderr


def test_a_missing_secret_is_named_and_never_shown(dr: Dr) -> None:
    del dr.env["DR_TEST_PASSWORD"]
    done = dr("plan", "check")
    assert done.returncode == 3
    assert "databases.shop.connection.password" in done.stderr
    assert "DR_TEST_PASSWORD" in done.stderr


def test_the_plan_is_shown_with_references_for_secrets(dr: Dr) -> None:
    assert "${ENV:DR_TEST_PASSWORD}" in dr("plan", "show").stdout
    shown = json.loads(dr("plan", "show", "--json").stdout)
    assert shown["databases"]["shop"]["connection"]["password"] == "${ENV:DR_TEST_PASSWORD}"


def test_the_schema_is_one_json_document(dr: Dr) -> None:
    assert "databases" in json.loads(dr("plan", "schema").stdout)["properties"]


def test_the_plan_option_wins_over_the_environment(dr: Dr) -> None:
    done = dr("--plan", "elsewhere.yaml", "plan", "check")
    assert done.returncode == 3
    assert "elsewhere.yaml" in done.stderr


def test_a_new_key_is_its_owner_s_alone_and_never_overwritten(dr: Dr) -> None:
    told = json.loads(dr("key", "new", "--out", "identity.txt", "--json").stdout)
    path = dr.folder / "identity.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    assert str(Identity.parse(written).recipient) == told["recipient"]
    assert "SECRET" not in json.dumps(told)
    again = dr("key", "new", "--out", "identity.txt")
    assert again.returncode != 0
    assert "identity.txt" in again.stderr
    assert path.read_text() == written


def test_a_key_that_cannot_be_written_is_wrong_usage(dr: Dr) -> None:
    done = dr("key", "new", "--out", "nowhere/identity.txt")
    assert done.returncode == 2
    assert "nowhere/identity.txt" in done.stderr


def test_arguments_are_explained(dr: Dr) -> None:
    assert "A server of the plan." in dr("backup", "--help").stdout


def test_a_repository_is_made_once(dr: Dr) -> None:
    assert dr("repository", "init").returncode == 0
    described = (dr.folder / "disk" / "repository.json").read_text()
    assert dr("repository", "init").returncode == 0
    assert (dr.folder / "disk" / "repository.json").read_text() == described


def test_without_a_repository_the_hint_names_the_next_command(dr: Dr) -> None:
    done = dr("list", "shop")
    assert done.returncode == 12
    assert "dr repository init" in done.stderr


def test_an_error_is_json_where_json_was_asked_for(dr: Dr) -> None:
    done = dr("list", "shop", "--json")
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode == 12
    assert "dr repository init" in told["hint"]


def test_a_backup_is_shown_by_its_label_alone(dr: Dr) -> None:
    dr("repository", "init")
    for words in (["latest"], ["20261124T020000Z-full"], ["shop", "latest"]):
        done = dr("repository", "show", *words)
        assert done.returncode == 12
        assert "of shop on primary" in done.stderr
        assert "dr list --tier primary" in done.stderr
    assert dr("repository", "show", "shop", "one", "two").returncode == 2


def test_a_file_that_is_no_identity_is_a_matter_of_keys(dr: Dr) -> None:
    dr("repository", "init")
    for content in (b"\xff\x00", b"AGE-SECRET-KEY-1NONSENSE\n", b""):
        (dr.folder / "identity.txt").write_bytes(content)
        done = dr("verify", "shop", "--identity", "identity.txt")
        assert done.returncode == 13
        assert "dr key new" in done.stderr
        assert "NONSENSE" not in done.stderr


def test_an_empty_repository_lists_nothing(dr: Dr) -> None:
    dr("repository", "init")
    assert json.loads(dr("list", "shop", "--json").stdout)["backups"] == []


def test_status_says_what_is_missing(dr: Dr) -> None:
    dr("repository", "init")
    done = dr("status", "--json")
    assert done.returncode == 41
    (state,) = json.loads(done.stdout)
    assert state["server"] == "shop"
    said = " ".join(state["warnings"])
    assert "no full backup" in said
    assert "dr wal stream shop" in said


def test_an_unknown_server_is_wrong_usage_and_the_known_ones_are_named(dr: Dr) -> None:
    done = dr("backup", "shoop")
    assert done.returncode == 2
    assert "shop" in done.stderr


def test_a_server_that_is_away_has_its_own_exit_code_and_leaves_nothing(dr: Dr) -> None:
    dr("repository", "init")
    done = dr("backup", "shop")
    assert done.returncode == 20
    assert [path.name for path in (dr.folder / "disk").rglob("*") if path.is_file()] == ["repository.json"]


@pytest.mark.parametrize(
    "target",
    [
        ("--time", "2026-11-23T10:00:00"),
        ("--time", "yesterday"),
        ("--lsn", "nowhere"),
        ("--xid", "twelve"),
        ("--lsn", "0/1", "--immediate"),
    ],
    ids=["no zone", "no time", "no LSN", "no xid", "two targets"],
)
def test_a_target_that_makes_no_sense_is_wrong_usage(dr: Dr, target: tuple[str, ...]) -> None:
    done = dr("restore", "shop", "--to", "new", *target)
    assert done.returncode == 2
    assert target[0] != "--time" or "write it as 2026-11-23T10:00:00Z" in done.stderr
    assert not (dr.folder / "new").exists()


def test_a_restore_with_nothing_to_restore_touches_nothing(dr: Dr) -> None:
    dr("repository", "init")
    done = dr("restore", "shop", "--to", "new")
    assert done.returncode == 12
    assert "dr backup shop" in done.stderr
    assert not (dr.folder / "new").exists()


def test_a_good_store_passes_and_is_left_clean(dr: Dr) -> None:
    done = dr("store", "check", "primary", "--json")
    assert done.returncode == 0
    assert {check["verdict"] for check in json.loads(done.stdout)} == {"pass"}
    assert not [path for path in (dr.folder / "disk").rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_tried_says_what_to_do(dr: Dr) -> None:
    (dr.folder / "disk").rmdir()
    done = dr("store", "check", "primary")
    assert done.returncode == 40
    assert re.search(r"NOT PROVEN +put_is_read_back: disk: there is no folder", done.stdout)
    assert "mount the disk" in done.stderr


@pytest.mark.parametrize("argv", [("nonsense",), ("backup",), ("list", "--colour"), ("key", "new")])
def test_wrong_usage_is_json_too(dr: Dr, argv: tuple[str, ...]) -> None:
    done = dr(*argv, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2


def test_the_plan_option_may_stand_behind_the_command(dr: Dr) -> None:
    assert "elsewhere.yaml" in dr("plan", "check", "--plan", "elsewhere.yaml").stderr


def test_a_tier_without_its_secret_does_not_keep_the_others_from_becoming_repositories(dr: Dr) -> None:
    locked = {
        "type": "s3", "endpoint": "http://127.0.0.1:1", "bucket": "bucket",
        "access_key_id": "${ENV:DR_NOWHERE}", "secret_access_key": "${ENV:DR_NOWHERE}",
    }  # fmt: skip
    shop = {**PLAN["databases"]["shop"], "storage": {"primary": "locked", "secondary": "disk"}}  # type: ignore[index]
    plan = {**PLAN, "storage": {"locked": locked, **PLAN["storage"]}, "databases": {"shop": shop}}  # type: ignore[dict-item]
    (dr.folder / "plan.yaml").write_text(yaml.dump(plan))
    done = dr("repository", "init", "--json")
    assert done.returncode == 3
    assert [answer["error"] is None for answer in json.loads(done.stdout)] == [False, True]
    assert (dr.folder / "disk" / "repository.json").exists()


def test_list_without_a_server_lists_all(dr: Dr) -> None:
    dr("repository", "init")
    assert json.loads(dr("list", "--json").stdout)["shop"]["backups"] == []


def test_every_kind_of_error_has_a_documented_exit_code() -> None:
    def below(kind: type[DrError]) -> list[type[DrError]]:
        return [kind, *(found for inner in kind.__subclasses__() for found in below(inner))]

    documented = {int(number) for number in re.findall(r"\d+", EXIT_CODES)}
    assert {kind.exit_code for kind in below(DrError)} <= documented
    assert [kind for kind in below(DrError) if kind.exit_code == 1] == [DrError]


def test_every_command_of_the_operators_guide_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operators-guide.md").read_text()
    root = typer.main.get_command(make_app())
    found = re.findall(r"`dr ([^`]+)`", text)
    assert len(found) > 8
    for words in map(shlex.split, found):
        command = root
        while isinstance(command, click.Group) and words:
            assert words[0] in command.commands, words
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options


def test_a_plan_that_is_shown_is_a_plan(dr: Dr) -> None:
    (dr.folder / "shown.yaml").write_text(dr("plan", "show").stdout)
    assert dr("plan", "check", "--plan", "shown.yaml").returncode == 0


def test_status_says_what_to_do_about_a_tier_that_is_no_repository(dr: Dr) -> None:
    done = dr("status")
    assert done.returncode == 40
    assert re.search(r"warning: primary cannot be read: .*`dr repository init`", done.stdout)


def test_status_shows_every_problem_that_makes_it_fail(dr: Dr) -> None:
    dr("repository", "init")
    backup = dr.folder / "disk" / "servers" / "shop" / "backups" / "20261124T020000Z-full"
    backup.mkdir(parents=True)
    (backup / "manifest.json").write_text("{}")
    assert re.search(r"warning: .*20261124T020000Z-full.*on primary", dr("status").stdout)


def test_a_suggestion_is_made_once(dr: Dr) -> None:
    assert dr("lst").stderr.count("id you mean") == 1


def test_a_group_without_a_command_shows_its_help_and_no_error(dr: Dr) -> None:
    done = dr("plan")
    assert done.returncode == 2
    assert "schema" in done.stdout + done.stderr
    assert "error:" not in done.stderr


@pytest.mark.parametrize(
    "more",
    [
        ["--timeline", "0"],
        ["--name", ""],
        ["--xid", "abc"],
        ["--exclusive"],
        ["--immediate", "--exclusive"],
        ["--action", "dance"],
        ["--use-incrementals", "maybe"],
        ["--tier", "primry"],
        ["--immediate", "--lsn", "0/1"],
    ],
)
def test_a_restore_that_makes_no_sense_is_wrong_usage_with_a_hint(dr: Dr, more: list[str]) -> None:
    done = dr("restore", "shop", "--to", "restored", *more, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 2
    assert told["hint"]


def test_a_tier_that_is_none_is_one_document_in_json(dr: Dr) -> None:
    done = dr("list", "--tier", "primry", "--json")
    assert json.loads(done.stdout)["exit_code"] == 2
    assert done.stderr == ""


def test_a_store_s_name_serves_as_its_tier(dr: Dr) -> None:
    """What an error or the plan calls it can be typed back."""
    dr("repository", "init")
    for words in (
        ["list", "shop"],
        ["list"],
        ["repository", "show", "latest"],
        ["verify", "shop"],
        ["restore", "shop", "--to", "restored"],
        ["retention", "plan"],
        ["retention", "apply", "shop"],
        ["retention", "undo", "shop"],
    ):
        by_store, by_tier = dr(*words, "--tier", "disk"), dr(*words, "--tier", "primary")
        assert (by_store.returncode, by_store.stdout, by_store.stderr) == (
            by_tier.returncode,
            by_tier.stdout,
            by_tier.stderr,
        )
        assert by_store.returncode != 2
    assert "primary (disk)" in dr("verify", "shop", "--tier", "aws").stderr
    assert dr("store", "age", "disk", "--dry-run").returncode == 0


def test_a_label_that_no_tier_has_is_told_of_all_tiers(dr: Dr) -> None:
    dr("repository", "init")
    done = dr("keep", "20261124T020000Z-full", "--forever", "--reason", "audit")
    assert done.returncode == 12
    assert "is on any tier" in done.stderr


def test_a_stream_of_no_server_does_not_say_that_it_streams(dr: Dr) -> None:
    done = dr("wal", "stream", "shopp")
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_scrub_tells_by_its_exit_code_what_it_saw(dr: Dr) -> None:
    assert dr("scrub", "primary").returncode == 12  # no repository yet
    assert dr("repository", "init").returncode == 0
    nothing = dr("scrub", "disk", "--json")
    assert nothing.returncode == 40
    assert json.loads(nothing.stdout)["check"]["verdict"] == "not proven"
    wrong = dr("scrub", "primary", "--sample", "0.1")
    assert wrong.returncode == 2 and "10%" in wrong.stderr


def test_retention_of_an_empty_repository_has_nothing_to_do(dr: Dr) -> None:
    dr("repository", "init")
    told = json.loads(dr("retention", "plan", "--json").stdout)
    assert (told[0]["name"], told[0]["tier"], told[0]["decisions"], told[0]["guards"]) == ("shop", "primary", [], [])
    done = dr("retention", "apply", "shop")
    assert (done.returncode, "0 backups expired" in done.stdout) == (0, True)
    assert "no backup of shop on primary is to come back" in dr("retention", "undo", "shop").stdout


def test_an_incident_is_opened_listed_and_closed_and_freezes_retention_meanwhile(dr: Dr) -> None:
    dr("repository", "init")
    identity = json.loads(dr("incident", "open", "--reason", "a disk is gone", "--json").stdout)["id"]
    assert identity in dr("incident", "list").stdout
    done = dr("retention", "apply", "--json")
    assert done.returncode == 40
    assert json.loads(done.stdout)[0]["table"]["guards"][0]["name"] == "incident"
    assert f"dr incident close {identity}" in json.loads(done.stderr)["hint"]
    assert dr("incident", "close", identity).returncode == 0
    assert dr("retention", "apply").returncode == 0
    assert json.loads(dr("incident", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["20260102T030405Z-full", "--reason", "x"], "say until when"),
        (["20260102T030405Z-full", "--forever"], "say until when"),
        (["20260102T030405Z-full", "--until", "2020-01-01", "--reason", "x"], "is over"),
        (["20260102T030405Z-full", "--until", "soon", "--reason", "x"], "not a date"),
        (["20260102T030405Z-full", "--release", "--reason", "x"], "goes with no other option"),
    ],
)
def test_a_keep_says_until_when_and_why(dr: Dr, argv: list[str], said: str) -> None:
    done = dr("keep", *argv, "--server", "shop")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_keep_of_what_is_not_there_says_so(dr: Dr) -> None:
    dr("repository", "init")
    done = dr("keep", "20260102T030405Z-full", "--forever", "--reason", "x")
    assert done.returncode == 12
    assert "no backup" in done.stderr


def test_objectives_that_nobody_measured_are_a_failure_with_every_line_shown(dr: Dr) -> None:
    assert dr("objectives").returncode == 40  # where nothing is promised, nothing is proven
    promises = {
        "systems": {"critical": {"database": {"rto": "1 hour", "server": "shop"}, "auth": "30 minutes"}},
        "data_classes": {"orders": {"rpo": "0 minutes", "server": "shop"}, "reports": "4 hours"},
    }
    (dr.folder / "plan.yaml").write_text(yaml.dump({**PLAN, **promises}))
    done = dr("objectives")
    assert done.returncode == 41
    assert re.search(r"orders +0 minutes +not seen +- +NOT PROVEN", done.stdout)
    assert re.search(r"reports +4 hours +never measured +- +NOT MET", done.stdout)
    assert re.search(r"database +1 hour +not seen +- +NOT PROVEN", done.stdout)
    assert re.search(r"auth +30 minutes +never measured +- +NOT MET", done.stdout)
    assert "2 of 4 objectives are not met or never measured: reports, auth" in done.stderr
    told = json.loads(dr("objectives", "shop", "--json").stdout)
    verdicts = {line["name"]: line["verdict"] for line in told["objectives"]}
    assert verdicts == {"orders": "not proven", "database": "not proven"}
    assert dr("objectives", "nobody").returncode == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--check", " ; "), "--check is empty"),
        (("--check", "SELECT true", "--from", "2026-11-26 06:20:00"), "has no zone"),
        (("--check", "SELECT true", "--from", "06:20 Europe/Nowhere"), "'06:20 Europe/Nowhere' is no instant"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_before_anything_is_read(
    dr: Dr, more: tuple[str, ...], said: str
) -> None:
    done = dr("find-last-good", "--server", "shop", *more)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
