"""The example plan is the company's written plan, whole: each block below is that plan's own text."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from dr_pipelines.plan import Plan, load_plan

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

DATABASE_BACKUPS = """
{"schedule": {"full": "daily", "incremental": "hourly", "transaction_logs": "continuous"},
 "retention": {"daily": "7 days", "weekly": "4 weeks", "monthly": "12 months"},
 "storage": {"primary": "supabase-backups", "secondary": "aws-s3-backup", "archive": "azure-cold-storage"}}
"""
FILE_STORAGE_BACKUPS = """
{"assets": {"schedule": "daily", "retention": "90 days", "versioning": true},
 "user_uploads": {"schedule": "hourly", "retention": "30 days", "versioning": true}}
"""
PROCEDURES = {
    "database": """
        Stop application services
        Verify backup integrity
        Restore database backup
        Apply transaction logs
        Verify data consistency
        Update connection strings
        Restart application services""",
    "file_storage": """
        Identify affected files
        Select appropriate backup
        Restore to temporary location
        Verify file integrity
        Update file references
        Migrate to production""",
}
SCENARIOS = {
    "complete_system_failure": """
        Activate emergency response team
        Assess damage extent
        Initialize recovery plan
        Restore from latest backup
        Verify system integrity
        Update DNS records
        Monitor system stability""",
    "data_corruption": """
        Isolate affected systems
        Identify corruption source
        Stop data synchronization
        Restore from last known good backup
        Verify data integrity
        Resume normal operations""",
    "security_breach": """
        Isolate compromised systems
        Reset all credentials
        Restore from pre-breach backup
        Apply security patches
        Update access controls
        Document incident
        Notify affected parties""",
}
TESTS = {
    "monthly": """
        Backup integrity verification
        Recovery time objectives
        Data consistency checks
        System integration tests""",
    "quarterly": """
        Full disaster recovery simulation
        Failover testing
        Cross-region recovery
        Data integrity validation""",
}
RTO = """
{"critical_systems": {"database": "1 hour", "api_services": "2 hours", "user_auth": "30 minutes"},
 "business_systems": {"admin_portal": "4 hours", "reporting": "8 hours", "analytics": "12 hours"}}
"""
RPO = """
{"transaction_data": "0 minutes", "user_data": "5 minutes", "analytics_data": "1 hour", "reporting_data": "4 hours"}
"""
DOCUMENTATION = {
    "incident": """
        Incident description
        Impact assessment
        Recovery steps taken
        Root cause analysis
        Prevention measures""",
    "recovery": """
        Backup restoration steps
        System verification checklist
        Data integrity checks
        Service restoration order
        Post-recovery validation""",
}


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(Path(__file__).parents[2] / "dr_plan.yaml")


_PASTED = """
version: 1
name: shop
encryption: none
storage:
  supabase-backups: {{type: local, path: a}}
  aws-s3-backup: {{type: local, path: b}}
  azure-cold-storage: {{type: local, path: c}}
databases:
  shop:
    connection: {{host: db.example}}
    <<: {database}
file_storage: {files}
systems: {rto}
data_classes: {rpo}
"""


def test_the_blocks_of_json_paste_in_as_they_are(tmp_path: Path) -> None:
    def indented(block: str) -> str:
        return block.replace("\n", "\n      ")

    path = tmp_path / "plan.yaml"
    blocks = {"database": DATABASE_BACKUPS, "files": FILE_STORAGE_BACKUPS, "rto": RTO, "rpo": RPO}
    path.write_text(_PASTED.format(**{name: indented(block) for name, block in blocks.items()}))
    pasted = load_plan(path)
    assert pasted.databases["shop"].schedule.incremental is not None
    assert pasted.databases["shop"].retention.monthly == 12
    assert pasted.file_storage["user_uploads"].retention == 30 * DAY
    assert pasted.systems["business_systems"]["analytics"].rto == 12 * HOUR
    assert pasted.data_classes["user_data"].rpo == 5 * MINUTE


def test_database_backups(plan: Plan) -> None:
    (shop,) = plan.databases.values()
    written = shop.model_dump(mode="json")
    assert {section: written[section] for section in ("schedule", "storage")} == {
        section: json.loads(DATABASE_BACKUPS)[section] for section in ("schedule", "storage")
    }
    asked = json.loads(DATABASE_BACKUPS)["retention"]
    assert {name: written["retention"][name] for name in asked} == asked
    assert (shop.retention.daily, shop.retention.weekly, shop.retention.monthly) == (7, 4, 12)
    assert shop.schedule.incremental is not None
    assert (shop.schedule.full.interval, shop.schedule.incremental.interval) == (DAY, HOUR)
    assert {name: store.type for name, store in plan.storage.items()} == {
        "supabase-backups": "s3",
        "aws-s3-backup": "s3",
        "azure-cold-storage": "local",  # stands in for Azure in the demo
    }


def test_file_storage_backups(plan: Plan) -> None:
    written = plan.model_dump(mode="json", exclude_none=True)["file_storage"]
    asked = json.loads(FILE_STORAGE_BACKUPS)
    assert {name: {key: written[name][key] for key in said} for name, said in asked.items()} == asked
    assert plan.file_storage["assets"].schedule.interval == DAY
    assert plan.file_storage["assets"].retention == 90 * DAY
    assert plan.file_storage["user_uploads"].schedule.interval == HOUR
    assert plan.file_storage["user_uploads"].retention == 30 * DAY


def test_recovery_procedures_and_scenarios_step_by_step(plan: Plan) -> None:
    assert plan.recovery.procedures == {name: _lines(text) for name, text in PROCEDURES.items()}
    assert plan.recovery.scenarios == {name: _lines(text) for name, text in SCENARIOS.items()}
    assert [len(steps) for steps in plan.recovery.procedures.values()] == [7, 6]


def test_tests_monthly_and_quarterly(plan: Plan) -> None:
    assert plan.testing.model_dump() == {when: _lines(text) for when, text in TESTS.items()}


def test_recovery_time_of_each_system(plan: Plan) -> None:
    written = plan.model_dump(mode="json")["systems"]
    said = {group: {name: system["rto"] for name, system in members.items()} for group, members in written.items()}
    assert said == json.loads(RTO)
    rto = {name: system.rto for members in plan.systems.values() for name, system in members.items()}
    assert list(rto.values()) == [HOUR, 2 * HOUR, 30 * MINUTE, 4 * HOUR, 8 * HOUR, 12 * HOUR]


def test_recovery_point_of_each_class_of_data(plan: Plan) -> None:
    written = plan.model_dump(mode="json")["data_classes"]
    assert {name: data["rpo"] for name, data in written.items()} == json.loads(RPO)
    assert [data.rpo for data in plan.data_classes.values()] == [0 * MINUTE, 5 * MINUTE, HOUR, 4 * HOUR]


def test_every_line_of_the_communication_plan_has_its_value(plan: Plan) -> None:
    internal, external = plan.communication.internal, plan.communication.external
    assert internal.emergency_contacts
    assert internal.response_team
    assert all(contact.reach for contact in (*internal.emergency_contacts, *internal.response_team))
    assert (internal.status_update_every, internal.progress_report_every) == (30 * MINUTE, HOUR)
    assert external.customer_notification_template
    assert external.status_page
    assert external.social_media
    assert external.support_tickets


def test_what_must_be_documented(plan: Plan) -> None:
    assert plan.documentation.model_dump() == {what: _lines(text) for what, text in DOCUMENTATION.items()}
