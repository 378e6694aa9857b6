"""The plan made live: stores, repositories and servers, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import DrError, UsageError
from dr_pipelines.plan import Plan
from dr_pipelines.plan.file_sets import FileSetPlan
from dr_pipelines.plan.model import ServerPlan
from dr_pipelines.plan.stores import LocalStorePlan, StorePlan
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.plan.tiers import TierPlan
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.owners import FileSetOwner, ServerOwner
from dr_pipelines.repository.placement import Placement
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.open import open_store
from dr_pipelines.storage.wrappers import ReadOnly

if TYPE_CHECKING:
    from dr_pipelines.postgres.server import Server
    from dr_pipelines.storage.bucket import Bucket

_DEBIAN = Path("/usr/lib/postgresql")


class Site:
    """What a plan describes. `stores`, when given, are the plan's stores by name, ready to use; `identity` is an age
    identity to use instead of the plan's. Making a site needs no secret and connects to nothing."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock | None = None,
        runner: Runner | None = None,
        stores: Mapping[str, ObjectStore] | None = None,
        identity: str | None = None,
    ) -> None:
        self.plan = plan
        self.clock = clock or SystemClock()
        self.runner = runner or Runner()
        self._ready = stores
        self._identity = identity
        self._opened: dict[str, ObjectStore] = {}

    @property
    def state_dir(self) -> Path:
        """What this host remembers: WAL on its way, the newest backup_manifests. No secrets."""
        return self.plan.state_dir

    def spool(self, server: str) -> Path:
        """Where this host's WAL stream keeps what it received until the tiers hold it."""
        return self.state_dir / server / "spool"

    def plan_of(self, server: str) -> ServerPlan:
        """Raises `UsageError` naming the servers that there are."""
        try:
            return self.plan.databases[server]
        except KeyError:
            known = ", ".join(self.plan.databases) or "none"
            raise UsageError(f"the plan names no server {server!r}", hint=f"its servers are: {known}.") from None

    def file_set(self, name: str) -> FileSetPlan:
        """Raises `UsageError` naming the file sets that there are."""
        try:
            return self.plan.file_storage[name]
        except KeyError:
            known = ", ".join(self.plan.file_storage) or "none"
            raise UsageError(f"the plan names no file set {name!r}", hint=f"its file sets are: {known}.") from None

    def owner(self, name: str) -> ServerOwner | FileSetOwner:
        """A server or a file set of the plan by its name. Raises `UsageError` when it is neither."""
        if name in self.plan.file_storage:
            return FileSetOwner(name)
        if name in self.plan.databases:
            return ServerOwner(name)
        known = ", ".join(self.users)
        raise UsageError(f"the plan names no server and no file set {name!r}", hint=f"there are: {known or 'none'}.")

    @property
    def file_sets(self) -> tuple[str, ...]:
        """Those of which the plan says what is read and where it goes."""
        return tuple(name for name, files in self.plan.file_storage.items() if files.is_backed_up)

    def storage_of(self, name: str) -> TierPlan:
        """The tiers of a server or a file set. Raises `UsageError`."""
        if isinstance(self.owner(name), ServerOwner):
            return self.plan_of(name).storage
        storage = self.file_set(name).storage
        if storage is None:
            raise UsageError(
                f"the plan does not say where {name} is backed up to",
                hint=f"name its source and storage under file_storage.{name}.",
            )
        return storage

    def store(self, name: str) -> ObjectStore:
        """A store by its name in the plan. Raises `SecretMissing`."""
        if self._ready is not None:
            return self._ready[name]
        if name not in self._opened:
            self._opened[name] = open_store(self._planned(name), name, clock=self.clock)
        return self._opened[name]

    def bucket(self, name: str) -> Bucket:
        """A store by its name in the plan, as a bucket of other people's objects. Raises `SecretMissing`, `PlanError`
        for a directory, `UsageError` where there is none."""
        from dr_pipelines.storage.open_bucket import open_bucket

        return open_bucket(self._planned(name), name, clock=self.clock)

    def _planned(self, store: str) -> StorePlan:
        if store not in self.plan.storage:
            raise UsageError(
                f"the plan names no store {store!r}", hint=f"its stores are: {', '.join(self.plan.storage)}."
            )
        return self.plan.storage[store]

    def store_of(self, tier_or_name: str) -> ObjectStore:
        """A store by its name, or by a tier that means one store in the whole plan."""
        return self.store(self.name_of(tier_or_name))

    def name_of(self, tier_or_name: str) -> str:
        """The name of a store, or of the one that a tier means in the whole plan. Raises `UsageError`."""
        if tier_or_name in self.plan.storage:
            return tier_or_name
        names = {dict(self.storage_of(user).items()).get(tier_or_name) for user in self.users} - {None}
        if len(names) != 1:
            raise UsageError(
                f"{tier_or_name!r} is neither a store nor a tier that means one",
                hint=f"name one of: {', '.join(self.plan.storage)}.",
            )
        return str(names.pop())

    def terms(self, server: str, tier: str) -> StorageTerms:
        """What the storage classes of a tier's store mean and cost."""
        return StorageTerms(self.plan.storage[self.store_name(server, tier)])

    def tiers(self, server: str) -> tuple[str, ...]:
        """Those that the server or file set uses, in order of preference."""
        return tuple(tier for tier, _ in self.storage_of(server).items())

    @property
    def users(self) -> tuple[str, ...]:
        """Of stores: servers and file sets."""
        return (*self.plan.databases, *self.file_sets)

    def repository(self, server: str, tier: str) -> Repository:
        """For taking: needs the recipients. The identity, where it is there, only spares a full when this host has
        forgotten the newest backup's `backup_manifest`. Raises `SecretMissing`."""
        encryption = self.plan.encryption
        recipients = encryption.public_keys() if encryption else ()
        return Repository(
            self._store_on(server, tier), self._codec(server, recipients), tier, self.placement(server, tier)
        )

    def read_only_repository(self, server: str, tier: str) -> Repository:
        """For everything else: needs no recipient, and so must never write. Raises `SecretMissing` of the store."""
        return Repository(ReadOnly(self._store_on(server, tier)), self._codec(server, ()), tier)

    def bare_repository(self, server: str, tier: str) -> Repository:
        """For what copies, marks or removes stored objects and encodes nothing: needs neither recipients nor identity.
        Raises `SecretMissing` of the store."""
        codec = Codec(self._level(server))
        return Repository(self._store_on(server, tier), codec, tier, self.placement(server, tier))

    def placement(self, server: str, tier: str) -> Placement:
        """How what is put on a tier lies there. A lock lasts for the recovery window and one interval of fulls more:
        until then the next full is there, and retention has looked and lengthened what it keeps longer."""
        name = dict(self.storage_of(server).items()).get(tier)
        store = self.plan.storage.get(name) if name is not None else None
        if store is None or isinstance(store, LocalStorePlan):
            return Placement(self.clock)
        first = next((aged.name for aged in store.classes if not aged.after), None)
        return Placement(self.clock, self._locked_for(server, tier) if store.lock else None, first)

    def _locked_for(self, name: str, tier: str) -> timedelta:
        if name in self.plan.file_storage:
            files = self.file_set(name)
            return files.retention_on(tier) + files.schedule.longest_interval
        plan = self.plan_of(name)
        return plan.retention.on(tier).recovery_window + plan.schedule.full.longest_interval

    def readable_repositories(self, server: str, tier: str | None = None) -> tuple[list[Repository], list[str]]:
        """For recovery: the tiers that can be opened here, and why others cannot: one missing secret must not block
        the others. Raises the first tier's error when none can."""
        found: list[Repository] = []
        notes: list[str] = []
        trouble: DrError | None = None
        for name in (tier,) if tier else self.tiers(server):
            try:
                found.append(self.read_only_repository(server, name))
            except DrError as error:
                trouble = trouble or error
                notes.append(f"{name} cannot be opened, and its WAL may go further: {error.message}")
        if not found and trouble is not None:
            raise trouble
        return found, notes

    def tier_of(self, server: str, tier_or_store: str) -> str:
        """A tier of a server, by itself or by its store's name. Raises `UsageError` naming both."""
        used = dict(self.storage_of(server).items())
        for tier, store in used.items():
            if tier_or_store in (tier, store):
                return tier
        named = ", ".join(f"{tier} ({store})" for tier, store in used.items())
        raise UsageError(f"{server} has no tier {tier_or_store!r}", hint=f"its tiers are: {named}.")

    def servers_on(self, tier_or_store: str) -> dict[str, str]:
        """Each server that has the tier or is kept on the store, with its tier. Raises `UsageError` when none is."""
        found = {name: tier for name, tier in self._on(tier_or_store).items() if name in self.plan.databases}
        if not found:
            raise UsageError(
                f"no server of the plan has a tier or store {tier_or_store!r}",
                hint="`dr plan show` shows which server uses which store.",
            )
        return found

    def users_on(self, tier_or_store: str) -> dict[str, str]:
        """The same of servers and file sets."""
        if not (found := self._on(tier_or_store)):
            raise UsageError(
                f"nothing in the plan has a tier or store {tier_or_store!r}",
                hint="`dr plan show` shows what uses which store.",
            )
        return found

    def _on(self, tier_or_store: str) -> dict[str, str]:
        return {
            name: tier
            for name in self.users
            for tier, store in self.storage_of(name).items()
            if tier_or_store in (tier, store)
        }

    def _store_on(self, server: str, tier: str) -> ObjectStore:
        return self.store(self.store_name(server, tier))

    def store_name(self, server: str, tier: str) -> str:
        """Of a tier of a server. Raises `UsageError` naming the tiers that there are."""
        stores = dict(self.storage_of(server).items())
        if tier not in stores:
            raise UsageError(f"{server} has no tier {tier!r}", hint=f"its tiers are: {', '.join(stores)}.")
        return stores[tier]

    def _level(self, name: str) -> int:
        compression = self.plan.compression
        return compression.files if name in self.plan.file_storage else compression.level

    def _codec(self, name: str, recipients: Sequence[str]) -> Codec:
        encryption = self.plan.encryption
        identities: tuple[str, ...] = ()
        if self._identity is not None:
            identities = (self._identity,)
        elif encryption is not None and encryption.identity is not None and encryption.identity.present:
            identities = (encryption.identity.reveal(),)
        return Codec(self._level(name), recipients, identities)

    def server(self, name: str) -> Server:
        """Raises `SecretMissing`."""
        # Imported here: files need no driver of PostgreSQL.
        from dr_pipelines.postgres.server import Server, ServerConnection

        given = self.plan_of(name).connection
        return Server(
            ServerConnection(
                host=given.host,
                port=given.port,
                user=given.user,
                dbname=given.dbname,
                password=given.password.reveal() if given.password else None,
                sslmode=given.sslmode,
            )
        )

    def tables_of(self, server: str) -> tuple[str, ...]:
        """Those that the plan's data classes name, or patterns of them (`sales.*`)."""
        named = (data.tables for data in self.plan.data_classes.values() if data.server == server)
        return tuple(dict.fromkeys(table for tables in named for table in tables))

    def slot(self, name: str) -> str:
        """The stream's replication slot, which is also what `synchronous_standby_names` calls it."""
        return self.plan_of(name).wal.slot or f"dr_{name.replace('-', '_')}"

    def bin_dir(self, name: str, major: int | None = None) -> Path | None:
        """Where PostgreSQL's programs are: as planned, Debian's folder of that version, or None for the PATH."""
        if (given := self.plan_of(name).bin_dir) is not None:
            return given
        return folder if major is not None and (folder := _DEBIAN / str(major) / "bin").is_dir() else None
