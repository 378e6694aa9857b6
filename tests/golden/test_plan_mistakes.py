"""The words for every kind of mistake in a plan: `plan.yaml` beside this file is right, each case spoils it once, and
`plan_mistakes.txt` holds what is then said. Read that file as the operator would.

After a change of the words: `DR_GOLDEN=write python -m pytest tests/golden`, then look at `git diff`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dr_pipelines.errors import PlanError
from dr_pipelines.plan import load_plan
from dr_pipelines.plan.load import check_secrets

HERE = Path(__file__).parent
RIGHT = (HERE / "plan.yaml").read_text()
SAID = HERE / "plan_mistakes.txt"
WRITING = os.environ.get("DR_GOLDEN") == "write"

# name: (what is replaced, by what, and so on); None replaces the whole plan.
CASES: dict[str, tuple[str | None, ...]] = {
    "a key with a typo": ("daily: 7 days", "dayly: 7 days"),
    "a section with a typo": ("databases:", "databasse:"),
    "an unknown key": ("version: 1", "version: 1\ncolour: blue"),
    "an unknown key of a store": ("path: /srv/backups", "path: /srv/backups\n    bucket: backups"),
    "a key that is missing": ("schedule:\n      full: daily\n      incremental", "schedule:\n      incremental"),
    "copies to a tier without a store": (
        "retention: {daily: 7 days", "replication: {archive: {send: everything}}\n    retention: {daily: 7 days",
    ),
    "retention of a tier that is none": ("monthly: 12 months}", "tiers: {cellar: {daily: 3 days}}}"),
    "retention of a tier without a store": (
        "monthly: 12 months}", "monthly: 12 months, tiers: {archive: {daily: 3 days}}}",
    ),
    "retention of one tier shorter than the way to the next full": (
        "monthly: 12 months}", "monthly: 12 months, tiers: {primary: {daily: 0 days, weekly: 0, monthly: 0}}}",
    ),
    "more than all at once": ("monthly: 12 months}", "monthly: 12 months, largest_share: 200 %}"),
    "a schedule that is none": ("full: daily", "full: fortnightly"),
    "a schedule that never comes": ("full: daily", 'full: "0 0 30 2 *"'),
    "incrementals as seldom as fulls": ("incremental: hourly", "incremental: daily"),
    "retention shorter than the way to the next full": (
        "full: daily\n      incremental: hourly\n    retention: {daily: 7 days, weekly: 4 weeks, monthly: 12 months}",
        "full: weekly\n      incremental: hourly\n    retention: {daily: 3 days, weekly: 0 weeks, monthly: 0 months}",
    ),
    "retention of files shorter than the way to the next": ("schedule: hourly", "schedule: monthly"),
    "retention in the wrong unit": ("weekly: 4 weeks", "weekly: 4 days"),
    "a duration that is none": ("rto: 1 hour", "rto: soon"),
    "a negative duration": ("rto: 1 hour", "rto: -1 hour"),
    "a duration of nothing": ("rto: 1 hour", "rto: 0 hours"),
    "a duration without its unit": ("rto: 1 hour", "rto: 4"),
    "a duration of more than a life": ("rto: 1 hour", "rto: 40000 days"),
    "retention beyond all measure": ("daily: 7 days", "daily: 99999999999"),
    "a count that is no number": ("daily: 7 days", "daily: true"),
    "a schedule at random": ("full: daily", 'full: "R R * * *"'),
    "a schedule that is no text": ("full: daily", "full: {text: daily, cron: 0 0 30 2 *}"),
    "a day that no month has": ("connection: {", "since: 2026-02-30\n    connection: {"),
    "a host without a name": ("host: db.example", 'host: ""'),
    "a path that is none": ("path: /srv/backups", 'path: ""'),
    "a path that is a number": ("path: /srv/backups", "path: 5"),
    "a word for a number": ("port: 5432", "port: postgres"),
    "a number out of range": ("port: 5432", "port: 70000"),
    "a word for yes or no": ("synchronous: true", "synchronous: maybe"),
    "a list for a mapping": ("wal: {synchronous: true}", "wal: [synchronous]"),
    "a mapping for a list": ("depends_on: [database]", "depends_on: {database: x}"),
    "a number for text": ("host: db.example", "host: 10"),
    "nothing where something is needed": ("connection: {host: db.example, port: 5432}", "connection:"),
    "a name with capitals": ("  shop:\n    connection", "  Shop:\n    connection"),
    "a name that is none": ("  shop:\n    connection", "  ~:\n    connection"),
    "an unknown type of store": ("type: local", "type: lokal"),
    "a store without its endpoint": ("    endpoint: https://one.example\n", ""),
    "half a pair of keys": ("    access_key_id: ${ENV:KEY_ID}\n", ""),
    "a secret written out": ("${ENV:SECRET}", "hunter2hunter2"),
    "a secret as a reference's default": ("${ENV:SECRET}", "${ENV:SECRET:-hunter2hunter2}"),
    "a secret that YAML takes for an alias": ("${ENV:SECRET}", "*hunter2hunter2"),
    "an address without its scheme": ("https://one.example", "one.example:9000"),
    "an address that is none and holds credentials": ("https://one.example", "https://me:hunter2@one.example:99999"),
    "a folder in a bucket's name": ("bucket: backups", "bucket: backups/prod"),
    "a prefix that no key may have": ("bucket: backups", "bucket: backups\n    prefix: ../my backups"),
    "a Supabase endpoint without its path": (
        "https://one.example\n", "https://abcdef.supabase.co\n    profile: supabase\n"
    ),
    "credentials in an address": ("https://one.example", "https://me:hunter2hunter2@one.example"),
    "a reference that is none": ("bucket: backups", "bucket: ${BUCKET}"),
    "a variable that is not set": ("bucket: backups", "bucket: ${ENV:DR_TEST_UNSET}"),
    "an unknown kind of source": (
        "retention: 30 days}", "retention: 30 days, source: {type: ftp, path: /srv}}"
    ),
    "a store without a type": ("    type: local\n", ""),
    "a private key for a recipient": ("age1wypx", "AGE-SECRET-KEY-1hunter2"),
    "a recipient that is none": ("age1wypx", "age1nope"),
    "no recipients": ("recipients: [age1wypxncaxwfkapmvz3a8sxvm2040sg6ynfgjldp3phn4qky0dca0sefqwcd]", "recipients: []"),
    "no decision on encryption": (
        "encryption:\n  recipients: [age1wypxncaxwfkapmvz3a8sxvm2040sg6ynfgjldp3phn4qky0dca0sefqwcd]", "encryption:"
    ),
    "a lock that Supabase cannot keep": (
        "https://one.example\n", "https://abcdef.supabase.co/storage/v1/s3\n    profile: supabase\n    lock: {}\n"
    ),
    "storage classes that Supabase does not have": (
        "https://one.example\n",
        "https://abcdef.supabase.co/storage/v1/s3\n    profile: supabase\n    classes: [{name: GLACIER_IR}]\n",
    ),
    "a storage class of another service": ("bucket: backups", "bucket: backups\n    classes: [{name: Cold}]"),
    "a price of a class that is none": ("bucket: backups", "bucket: backups\n    prices: {GLACEIR: {keep: 0.004}}"),
    "storage classes that are not in order of age": (
        "bucket: backups",
        "bucket: backups\n    classes: [{name: STANDARD_IA, after: 30 days}, {name: GLACIER_IR, after: 7 days}]",
    ),
    "storage classes that grow warmer": (
        "bucket: backups", "bucket: backups\n    classes: [{name: GLACIER_IR}, {name: STANDARD_IA, after: 90 days}]"
    ),
    "a primary that is offline when it is needed": (
        "bucket: backups",
        "bucket: backups\n    classes: [{name: STANDARD_IA}, {name: DEEP_ARCHIVE, after: 5 days}]",
    ),
    "a primary of files that is offline at once": (
        "  there:\n    type: local\n    path: /srv/backups",
        "  there:\n    type: azure\n    account_url: https://a.example\n    container: cold\n"
        "    classes: [{name: Archive}]",
        "secondary: there",
        "archive: there",
        "uploads: {schedule: hourly, retention: 30 days}",
        "uploads: {schedule: hourly, retention: 30 days, source: {type: directory, path: /srv/uploads},\n"
        "    storage: {primary: there}}",
    ),
    "two stores in one bucket": (
        "type: local\n    path: /srv/backups", "type: s3\n    endpoint: https://ONE.example/\n    bucket: backups"
    ),
    "two stores in one bucket, by the port": (
        "type: local\n    path: /srv/backups", "type: s3\n    endpoint: https://one.example.:443\n    bucket: Backups"
    ),
    "two stores in one bucket, by the prefix": (
        "type: local\n    path: /srv/backups",
        "type: s3\n    endpoint: http://one.example\n    bucket: backups\n    prefix: other",
    ),
    "two stores in one bucket of AWS": (
        "type: local\n    path: /srv/backups",
        "type: s3\n    profile: aws\n    bucket: backups",
        "endpoint: https://one.example",
        "endpoint: https://s3.eu-west-1.amazonaws.com",
    ),
    "a store within another": (
        "encryption:", "  inner: {type: local, path: /srv/backups/more}\nencryption:"
    ),
    "two tiers on one store": ("secondary: there", "secondary: here"),
    "a tier on a store that is not there": ("secondary: there", "secondary: their"),
    "WAL to a tier without a store": ("wal: {synchronous: true}", "wal: {tiers: [primary, archive]}"),
    "WAL twice to one tier": ("wal: {synchronous: true}", "wal: {tiers: [primary, primary]}"),
    "files of a store that is not there": (
        "retention: 30 days}", "retention: 30 days, source: {type: bucket, store: their}}"
    ),
    "files of a store that is a directory": (
        "retention: 30 days}", "retention: 30 days, source: {type: bucket, store: there}, storage: {primary: here}}"
    ),
    "files backed up to where they are": (
        "retention: 30 days}", "retention: 30 days, source: {type: bucket, store: here}, storage: {primary: here}}"
    ),
    "files backed up to another folder of their bucket": (
        "retention: 30 days}", "retention: 30 days, source: {type: bucket, store: media}, storage: {primary: here}}",
        "encryption:", "  media: {type: s3, endpoint: https://one.example, bucket: backups, prefix: up}\nencryption:",
    ),
    "two tiers of files on one store": (
        "retention: 30 days}", "retention: 30 days, storage: {primary: here, secondary: here}}"
    ),
    "WAL to no tier": ("wal: {synchronous: true}", "wal: {tiers: []}"),
    "a Supabase project backed up into itself": (
        "https://one.example\n    bucket: backups",
        "https://abcdef.supabase.co/storage/v1/s3\n    profile: supabase\n    bucket: backups",
        "host: db.example",
        "host: db.abcdef.supabase.co",
    ),
    "names that Dagster takes for one": (
        "databases:",
        "databases:\n  a-b: {connection: {host: a}, schedule: {full: daily}, storage: {primary: here}}\n"
        "  a_b: {connection: {host: b}, schedule: {full: daily}, storage: {primary: here}}",
    ),
    "systems and data classes that Dagster takes for one": (
        "systems:",
        "systems:\n  more: {a-b: 9 hours, a_b: 9 hours}",
        "data_classes:",
        "data_classes:\n  a-b: 1 hour\n  a_b: 1 hour",
    ),
    "one server under two names": (
        "databases:",
        "databases:\n  twin: {connection: {host: db.example}, schedule: {full: daily}, storage: {primary: here}}",
    ),
    "nothing lost without synchronous WAL": ("synchronous: true", "synchronous: false"),
    "less lost than the file set's schedule allows": ("rpo: 4 hours", "rpo: 5 minutes"),
    "less lost than polls of some of the files allow": (
        "rpo: 4 hours", "rpo: 5 minutes", "uploads: {schedule: hourly",
        "uploads: {poll: 1 minute, references: {a: {server: shop, table: a, path: b, prefix: c}}, schedule: hourly",
    ),
    "less lost than polls allow": (
        "rpo: 4 hours", "rpo: 5 minutes", "uploads: {schedule: hourly",
        "uploads: {poll: 6 minutes, references: {a: {server: shop, table: a, path: b}}, schedule: hourly",
    ),
    "back sooner than what it depends on": ("api: {rto: 2 hours", "api: {rto: 30 minutes"),
    "systems in a circle": ("{rto: 1 hour, server: shop}", "{rto: 2 hours, depends_on: [api]}"),
    "a system in two groups": ("  critical:", "  other: {database: 2 hours}\n  critical:"),
    "tables of no server": ("rpo: 4 hours, file_sets", "rpo: 4 hours, tables: [public.a], file_sets"),
    "a system on an unknown server": ("rto: 1 hour, server: shop", "rto: 1 hour, server: shops"),
    "a system that depends on an unknown one": ("depends_on: [database]", "depends_on: [databse]"),
    "data of an unknown file set": ("file_sets: [uploads]", "file_sets: [upload]"),
    "several mistakes at once": ("name: shop\nstorage", "name: Shop\ncolour: blue\nstorage"),
    "a key that is there twice": ("name: shop", "name: shop\nname: hunter2hunter2"),
    "a tab": ("  here:", "\there:"),
    "a line indented wrongly": ("name: shop", "name: shop\n  more: 1"),
    "a bracket that is not closed": ("[database]", "[database"),
    "a block of JSON at the edge": (
        "  uploads: {schedule: hourly, retention: 30 days}", '{\n  "uploads": {"retention": "1 day"}\n}'
    ),
    "a nest without end": (None, f"name: {'[' * 700}"),
    "a character that is no text": ("name: shop", "name: shop\x01"),
    "an empty file": (None, ""),
    "a file with nothing but remarks": (None, "# later\n"),
    "a file that is no mapping": (None, "- shop\n"),
}  # fmt: skip
SECRETS_MISSING = "secrets that are not there"


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, str]]:
    """What is to be said, by case. While writing, it grows as the cases run and is put down at the end."""
    cases = [] if WRITING else SAID.read_text().split("## ")[1:]
    found = {name: text.strip() for name, _, text in (case.partition("\n\n") for case in cases)}
    yield found
    if WRITING:
        SAID.write_text("\n".join(f"## {name}\n\n{text}\n" for name, text in found.items()))


def _spoilt(*replaced: str | None) -> str:
    text = RIGHT
    for old, new in zip(replaced[::2], replaced[1::2], strict=True):
        assert new is not None
        assert old is None or text.count(old) == 1, "the case spoils one place of the plan"
        text = new if old is None else text.replace(old, new)
    return text


def _compare(golden: dict[str, str], name: str, error: PlanError, folder: Path) -> str:
    said = str(error).replace(f"{folder}/", "")
    if WRITING:
        golden[name] = said
    assert said == golden[name]
    return said


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_said_in_these_words(name: str, golden: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(_spoilt(*CASES[name]))
    with pytest.raises(PlanError) as refused:
        load_plan(path)
    said = _compare(golden, name, refused.value, tmp_path)
    assert re.search(r"line \d+", said) or "characters" in said or "nested" in said
    assert "hunter2" not in said


def test_a_missing_secret_is_said_in_these_words(golden: dict[str, str]) -> None:
    with pytest.raises(PlanError) as refused:
        check_secrets(load_plan(HERE / "plan.yaml"), HERE / "plan.yaml")
    assert re.findall(r"\(line (\d+)\)", _compare(golden, SECRETS_MISSING, refused.value, HERE)) == ["8", "9"]


def test_no_words_are_left_over(golden: dict[str, str]) -> None:
    assert WRITING or set(golden) == {*CASES, SECRETS_MISSING}
