"""What the plan does not cover, asked of the server itself."""

from __future__ import annotations

from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import DrError
from dr_pipelines.postgres.backup_memory import BackupMemory
from dr_pipelines.postgres.inventory import read_inventory
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.site import Site
from dr_pipelines.validation.coverage import everything_is_covered
from dr_pipelines.validation.validate import read_facts


def find_uncovered(site: Site, server: str) -> CheckResult:
    """New databases, schemas, extensions and tablespaces since the newest backup, and tables of no data class. Raises
    what the server raises."""
    now = read_inventory(site.server(server))
    told, why_not = _newest_facts(site, server)
    return everything_is_covered(
        now, told, site.tables_of(server), why_not_told=why_not, file_sets=list(site.plan.file_storage)
    )


def _newest_facts(site: Site, server: str) -> tuple[SourceFacts | None, str]:
    """Those that this host remembers, or those in the primary tier, which need a key. And why there are none."""
    try:
        repository = site.read_only_repository(server, "primary")
        with_facts = [backup for backup in repository.backups(server) if backup.facts is not None]
        if not with_facts:
            return None, "no backup has facts of the server; the next one will"
        newest = with_facts[-1]
        return BackupMemory(site.state_dir / server).facts(newest) or read_facts(repository, newest), ""
    except DrError as error:
        return None, f"the facts of the newest backup could not be read: {error.message}"
