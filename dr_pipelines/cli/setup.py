"""`dr plan`, `dr key`, `dr repository`, `dr store`: before the first backup."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, MaybeName, TierOption, settings
from dr_pipelines.cli.listing import show_held
from dr_pipelines.cli.output import answer_checks, moment, out, print_facts, print_json, size
from dr_pipelines.disk import sync
from dr_pipelines.errors import DrError, UsageError
from dr_pipelines.plan import Plan, default_plan_path
from dr_pipelines.plan.load import check_secrets
from dr_pipelines.plan.model import plan_schema as json_schema
from dr_pipelines.plan.tiers import TierPlan
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.site import Site
from dr_pipelines.wording import counted

plan_app = typer.Typer(suggest_commands=False, help="Judge and show the DR plan.", no_args_is_help=True)
key_app = typer.Typer(suggest_commands=False, help="Make age keys.", no_args_is_help=True)
repository_app = typer.Typer(suggest_commands=False, help="The repositories on the tiers.", no_args_is_help=True)
store_app = typer.Typer(suggest_commands=False, help="The stores under the tiers.", no_args_is_help=True)


@plan_app.command("check")
def plan_check(as_json: Json = False) -> None:
    """Judge the plan: every mistake by its YAML path, and every secret that is not there."""
    plan, path = settings.plan(), settings.plan_path or default_plan_path()
    check_secrets(plan, path)
    if as_json:
        print_json({"plan": str(path), "ok": True})
    else:
        out.print(
            f"{path}: the plan is right: {counted(len(plan.databases), 'server')}, "
            f"{counted(len(plan.storage), 'store')}"
        )


@plan_app.command("show")
def plan_show(as_json: Json = False) -> None:
    """The plan as understood, with secrets as references."""
    document = settings.plan().model_dump(mode="json")
    if as_json:
        print_json(document)
        return
    text = io.StringIO()
    YAML().dump(document, text)
    out.print(text.getvalue(), soft_wrap=True)


@plan_app.command("schema")
def plan_schema(as_json: Json = False) -> None:
    """The JSON Schema of a plan, always JSON; an editor completes with it."""
    print_json(json_schema())


@key_app.command("new")
def key_new(
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the identity here, readable by you only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an age identity and print its recipient, which goes into the plan."""
    if as_json and out_file is None:
        raise UsageError(
            "--json never prints a private key", hint="name a file for it: `dr key new --out FILE --json`."
        )
    identity = generate_identity()
    text = f"# public key: {identity.recipient}\n{identity.reveal()}\n"
    if out_file is None:
        out.print(text, end="", soft_wrap=True)
        return
    try:
        _write_once(out_file, text)
    except FileExistsError:
        raise UsageError(
            f"{out_file} is there already", hint="a key is never overwritten: name another file."
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {out_file}: {error.strerror}", hint="name another file with --out.") from None
    if as_json:
        print_json({"recipient": str(identity.recipient), "identity_file": str(out_file)})
    else:
        out.print(f"recipient: {identity.recipient}", soft_wrap=True)
        out.print(f"identity:  {out_file} (keep it where restores happen, and a copy in a safe)", soft_wrap=True)


def _write_once(path: Path, text: str) -> None:
    """On disk when it returns: what is encrypted to a key that is lost is lost. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError:
        path.unlink()
        raise


@repository_app.command("init")
def repository_init(as_json: Json = False) -> None:
    """Make every tier of the plan a repository; one that is one already stays as it is."""
    site = settings.site()
    errors: dict[str, DrError] = {}
    for store, (server, tier) in _places(site.plan).items():
        try:
            site.repository(server, tier).initialise()
        except DrError as error:  # the other tiers must not wait for this one
            errors[store] = error
    answers = [
        {"store": store, "tier": tier, "error": errors[store].message if store in errors else None}
        for store, (_, tier) in _places(site.plan).items()
    ]
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            said = f": {answer['error']}" if answer["error"] else " is a repository"
            out.print(f"{answer['tier']}: {answer['store']}{said}", soft_wrap=True)
    if errors:
        raise next(iter(errors.values()))


def _places(plan: Plan) -> dict[str, tuple[str, str]]:
    """Each store that is used, with one (server or file set, tier) that uses it."""
    storage: dict[str, TierPlan | None] = {name: described.storage for name, described in plan.databases.items()}
    storage |= {name: described.storage for name, described in plan.file_storage.items()}
    found: dict[str, tuple[str, str]] = {}
    for user, tiers in storage.items():
        for tier, store in tiers.items() if tiers is not None else ():
            found.setdefault(store, (user, tier))
    return found


@repository_app.command("list")
def repository_list(name: MaybeName = None, tier: TierOption = None, as_json: Json = False) -> None:
    """The backups and snapshots on a tier, of one server or file set or of all."""
    show_held(name, tier or "primary", as_json=as_json)


@repository_app.command("show")
def repository_show(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[SERVER] LABEL", help="A backup's label, or latest; the server only where needed."),
    ],
    tier: TierOption = None,
    as_json: Json = False,
) -> None:
    """One backup's manifest."""
    if len(words) > 2:
        raise UsageError("`dr repository show` takes a server and a label, no more")
    server, label = words if len(words) == 2 else (None, words[0])
    site, where = settings.site(), tier or "primary"
    where = site.tier_of(server, where) if server else _tier_of_any(site, where)
    manifest = operations.find_backup(site, label, where, server)
    if as_json:
        print_json(manifest)
    else:
        print_facts(_facts(manifest))


def _tier_of_any(site: Site, tier_or_store: str) -> str:
    """What a store is to the servers of the plan: to all of them the same, or the server must be named."""
    tiers = {*site.servers_on(tier_or_store).values()}
    if len(tiers) > 1:
        raise UsageError(f"{tier_or_store} is {' and '.join(sorted(tiers))}", hint="name the server before the label.")
    return tiers.pop()


def _facts(manifest: BackupManifest) -> dict[str, Any]:
    """What a person asks of a backup; the whole manifest is for programs."""
    recipients = manifest.encoding.recipients
    facts = {
        "label": manifest.label,
        "server": f"{manifest.server}, PostgreSQL {manifest.postgres_version}, system {manifest.system_id}",
        "kind": manifest.kind.value,
        "because": manifest.kind_reason,
        "provisional": manifest.provisional,
        "parent": manifest.parent,
        "started": moment(manifest.started_at),
        "finished": moment(manifest.finished_at),
        "LSN": f"{manifest.start_lsn} to {manifest.stop_lsn}, timeline {manifest.timeline.id}",
        "checksums": "on" if manifest.data_checksums else "off",
        "tablespaces": ", ".join(space.location for space in manifest.tablespaces) or None,
        "archive": f"{counted(len(manifest.archive.packs), 'pack')}, {size(manifest.archive.size)}",
        "stored": f"{counted(len(manifest.objects), 'object')}, {size(manifest.stored_size)}",
        "encrypted to": ", ".join(recipients) or "nobody: anyone who reads the store reads it",
        "taken": f"on {manifest.taken_on} by dr {manifest.tool_version}",
        "break glass": next((file.key for file in manifest.break_glass if file.key.endswith("README.md")), None),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


@store_app.command("check")
def store_check(
    tier: Annotated[str, typer.Argument(metavar=TIER, help="A tier, or a store of the plan.")],
    canary: Annotated[
        bool, typer.Option("--canary", help="Also attack a locked object, which stays for a day.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try what a backup needs on the real bucket, and read back its settings and locks.

    Scratch objects are removed again. With --canary, a locked object is attacked with the store's own credentials.
    """
    site = settings.site()
    checks = [*operations.check_store(site, tier), *operations.check_immutability(site, tier, canary=canary)]
    answer_checks(checks, as_json=as_json)
