"""A server whose rows point at files of a directory, and the plan that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.operations import Reconciliation, reconcile, take_snapshot
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site

DIGEST = {"digest": "sha256", "size": "bytes"}


@dataclass
class Shop:
    """A server, a folder of files, and a plan in which rows of `docs.files` point at them."""

    server: EmbeddedPostgres
    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def site(self, *, clock: Any = None, **changes: Any) -> Site:
        return Site(Plan.model_validate(self.plan(**changes)), clock=clock or SystemClock())

    def plan_file(self, **changes: Any) -> Path:
        path = self.folder / "plan.yaml"
        path.write_text(json.dumps(self.plan(**changes)))
        return path

    def plan(self, **changes: Any) -> dict[str, Any]:
        """`changes` of the reference; `poll` of the file set."""
        polls = {"poll": changes.pop("poll")} if "poll" in changes else {}
        reference = {"server": "shop", "table": "docs.files", "path": '"Path"', "prefix": "store"} | DIGEST | changes
        return {
            "version": 1, "name": "test", "encryption": "none", "state_dir": str(self.folder / "state"),
            "storage": {"disk": {"type": "local", "path": str(self.folder / "repository")}},
            "databases": {"shop": {
                "connection": {"host": "127.0.0.1", "port": self.server.port, "user": "postgres"},
                "storage": {"primary": "disk"}, "schedule": {"full": "daily"},
                "retention": {"daily": 7}, "bin_dir": str(bin_dir(self.server.version)),
                **({"os_user": account} if (account := os_user()) else {}),
            }},
            "file_storage": {"docs": {
                "schedule": "hourly", "retention": "30 days", "storage": {"primary": "disk"},
                "source": {"type": "directory", "path": str(self.files)}, "references": {"rows": reference},
                **polls,
            }},
            "data_classes": {"documents": {"rpo": "1 hour", "file_sets": ["docs"]}},
        }  # fmt: skip

    def snapshot(self, site: Site | None = None) -> str:
        site = site or self.site()
        site.repository("docs", "primary").initialise()
        return take_snapshot(site, "docs", Silent()).label

    def make_table(self) -> None:
        (self.files / "store").mkdir(parents=True, exist_ok=True)
        self.server.psql(
            "DROP SCHEMA IF EXISTS docs CASCADE; CREATE SCHEMA docs; "
            'CREATE TABLE docs.files ("Path" text, bytes int, sha256 text, changed timestamptz DEFAULT now())'
        )

    def add(self, path: str, content: str = "content", *, row: bool = True, file: bool = True) -> None:
        if file:
            place = self.files / "store" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        if row:
            digest = hashlib.sha256(content.encode()).hexdigest()
            self.server.psql(f"INSERT INTO docs.files VALUES ('{path}', {len(content.encode())}, '{digest}')")

    def change(self, path: str, content: str) -> None:
        """A file written anew, and its row."""
        self.add(path, content, row=False)
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.server.psql(
            f"UPDATE docs.files SET bytes = {len(content.encode())}, sha256 = '{digest}', changed = clock_timestamp() "
            f"WHERE \"Path\" = '{path}'"
        )

    def look(self, **more: Any) -> Reconciliation:
        return reconcile(self.site(), "docs", Silent(), **{"settled": 0.0, **more})
