"""`dr retention` and `dr keep`: what is kept, what goes, and a person's veto."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, settings, who
from dr_pipelines.cli.output import Bars, err, out, print_json, print_table, size
from dr_pipelines.errors import BackupNotFound, DrError, NotProven, UsageError
from dr_pipelines.operations import RetentionReport, RetentionTable
from dr_pipelines.site import Site
from dr_pipelines.wording import counted

retention_app = typer.Typer(
    suggest_commands=False, help="What is kept on each tier, and removing the rest.", no_args_is_help=True
)
OneTier = Annotated[str | None, typer.Option("--tier", metavar=TIER, help="One tier; all of them when left out.")]
TheTier = Annotated[str, typer.Option("--tier", metavar=TIER, help="The tier.")]


MaybeName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A server or file set of the plan; all of them when left out.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A server or file set of the plan.")]


@retention_app.command("plan")
def plan(name: MaybeName = None, tier: OneTier = None, as_json: Json = False) -> None:
    """What would be kept and what would go, and why. Changes nothing.

    Exits 40 where nothing could go now, because something looks wrong.
    """
    site = settings.site()
    answers, errors = _on_each(site, name, tier, lambda each, where: operations.plan_retention(site, each, where))
    tables = [answer for answer in answers if isinstance(answer, RetentionTable)]
    if as_json:
        print_json(tables)
    else:
        for table in tables:
            _show(table)
    _end(tables, errors)


@retention_app.command("apply")
def apply(
    name: MaybeName = None,
    tier: OneTier = None,
    yes: Annotated[bool, typer.Option("--yes", help="More than the plan's share may go at once.")] = False,
    early: Annotated[
        bool, typer.Option("--early", help="What its storage class is paid for still may go too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let go of what the plan does not keep, and remove what was let go long enough ago.

    Exits 40 where nothing went, because something looks wrong: each warning says what.
    """
    site = settings.site()
    with Bars() as bars:
        answers, errors = _on_each(
            site,
            name,
            tier,
            lambda each, where: operations.apply_retention(site, each, where, bars, yes=yes, early=early),
        )
    reports = [answer for answer in answers if isinstance(answer, RetentionReport)]
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            _tell(report)
    _end([report.table for report in reports], errors)


@retention_app.command("undo")
def undo(
    name: Name,
    labels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LABEL…]", help="Backups or snapshots; all that can come back when left out."),
    ] = None,
    tier: TheTier = "primary",
    as_json: Json = False,
) -> None:
    """Bring back backups or snapshots that were let go and are not pruned yet, with what they build on."""
    site = settings.site()
    tier = site.tier_of(name, tier)
    back = operations.undo_expiry(site, name, tier, labels or None)
    if as_json:
        print_json(back)
        return
    if not back:
        thing = "snapshot" if name in site.plan.file_storage else "backup"
        out.print(f"no {thing} of {name} on {tier} is to come back")
        return
    for label in back:
        out.print(f"{label} is there again")
    out.print("held for the plan's grace: until then mend its retention, or hold them with `dr keep`", soft_wrap=True)


def keep(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A backup, or a snapshot of files.")],
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE", help="2027-01-31, or with a time; UTC.")
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Until it is released.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for whoever asks later.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Take every keep of it back.")] = False,
    whose: Annotated[
        str | None,
        typer.Option("--server", "--file-set", metavar="NAME", help="Whose; needed where several have the label."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep a backup or a snapshot, with all that it needs, on every tier that has it, whatever the plan says."""
    site = settings.site()
    name = _whose(site, label, whose)
    if release:
        if until or forever or reason:
            raise UsageError(
                "--release takes every keep back, and goes with no other option but --server or --file-set"
            )
        tiers = operations.release_backup(site, name, label)
        _answer(as_json, {"label": label, "released": tiers}, f"{label} is released on {_named(tiers)}")
        return
    if (until is None) == (not forever) or not reason:
        raise UsageError("say until when, and why", hint="add --until DATE or --forever, and --reason.")
    ends = _moment(until, site) if until else None
    tiers = operations.keep_backup(site, name, label, until=ends, reason=reason, by=who())
    shown = f"until {ends:%Y-%m-%d %H:%M} UTC" if ends else "for ever"
    _answer(as_json, {"label": label, "until": ends, "kept": tiers}, f"{label} is kept {shown} on {_named(tiers)}")


# --- inside -------------------------------------------------------------------------------------------------


def _on_each(site: Site, name: str | None, tier: str | None, act: Any) -> tuple[list[Any], list[DrError]]:
    """One tier's trouble does not stop another."""
    answers: list[Any] = []
    errors: list[DrError] = []
    for each, where in _places(site, name, tier):
        try:
            answers.append(act(each, where))
        except DrError as error:
            errors.append(error)
    return answers, errors


def _places(site: Site, name: str | None, tier: str | None) -> list[tuple[str, str]]:
    if tier is None:
        return [(each, where) for each in ([name] if name else site.users) for where in site.tiers(each)]
    return [(name, site.tier_of(name, tier))] if name else [*site.users_on(tier).items()]


def _end(tables: Iterable[RetentionTable], errors: list[DrError]) -> None:
    for error in errors[1:]:
        err.print(error.message, style="yellow", soft_wrap=True)
    if errors:
        raise errors[0]
    frozen = [(table, guard) for table in tables for guard in table.guards]
    if frozen:
        places = dict.fromkeys(f"{table.name} on {table.tier}" for table, _ in frozen)
        raise NotProven(f"nothing goes: {', '.join(places)}; {frozen[0][1].sentence}", hint=frozen[0][1].hint)


def _show(table: RetentionTable) -> None:
    rows = [
        (
            decision.label,
            "keep" if decision.keep else "expire",
            f"{decision.until:%Y-%m-%d}" if decision.until else None,
            None if decision.keep else size(decision.stored_bytes),
            f"{charged.cost:.2f}" if (charged := table.early.get(decision.label)) else None,
        )
        for decision in table.decisions
    ]
    if rows:
        print_table(f"{table.name} on {table.tier}", ["label", "", "until", "frees", "early"], rows)
    else:
        out.print(f"there is no {table.thing} of {table.name} on {table.tier}")
    for decision in table.decisions:
        out.print(f"{decision.label}: {decision.why}", soft_wrap=True)
    _show_rest(table)


def _show_rest(table: RetentionTable) -> None:
    goes = [f"{label} ({size(stored)}), expired long enough ago" for label, stored in table.prune.items()]
    goes += [f"{label} ({size(stored)}), garbage of a crash" for label, stored in table.garbage.items()]
    if table.wal_objects:
        goes.append(f"{counted(table.wal_objects, 'object')} of WAL ({size(table.wal_bytes)})")
    if table.archives:
        stored = sum(table.archives.values())
        goes.append(f"{counted(len(table.archives), 'archive')} ({size(stored)}) that no snapshot needs")
    for what in goes:
        out.print(f"goes now: {what}", soft_wrap=True)
    _show_liveness(table)
    if table.early:
        total = sum(charged.cost for charged in table.early.values())
        out.print(f"early: removing now what its storage class is paid for still would waste {total:.2f}")
    for what in table.unread:
        out.print(f"cannot be read, so what is due there stays: {what}", style="yellow", soft_wrap=True)
    for guard in table.guards:
        out.print(f"nothing goes: {guard.sentence}; {guard.hint}", style="yellow", soft_wrap=True)


def _show_liveness(table: RetentionTable) -> None:
    if (alive := table.liveness) is not None:
        left = counted(len(alive.left_behind), "archive")
        more = f"; what is left of {left} is stored anew by the next snapshot" if alive.left_behind else ""
        out.print(
            f"of {size(alive.stored_bytes)} that the newest snapshot names, {size(alive.dead_bytes)} are no longer of "
            f"its files{more}",
            soft_wrap=True,
        )
    if table.unmeasured is not None:
        out.print(f"how much of it is dead was not looked at: {table.unmeasured}", soft_wrap=True)


def _tell(report: RetentionReport) -> None:
    table, pruned = report.table, report.pruned
    where = f"{table.name} on {table.tier}"
    for guard in table.guards:
        out.print(f"{where}: nothing goes: {guard.sentence}; {guard.hint}", style="yellow", soft_wrap=True)
    if table.guards:
        return
    for label in report.expired:
        out.print(f"{where}: {label} is expired", soft_wrap=True)
    if report.expired:
        out.print(f"to bring them back: `dr retention undo {table.name} --tier {table.tier}`", soft_wrap=True)
    for label, why in report.refused.items():
        out.print(f"{where}: {label} stays: {why}", soft_wrap=True)
    besides = (
        f"{counted(pruned.wal_objects, 'object')} of WAL"
        if table.thing == "backup"
        else counted(pruned.archives, "archive")
    )
    removed = f"{counted(len(pruned.labels), table.thing)} and {besides}"
    out.print(
        f"{where}: {counted(len(report.expired), table.thing)} expired; {removed} pruned, {size(pruned.bytes)} freed",
        soft_wrap=True,
    )
    if pruned.postponed:
        out.print(
            f"{where}: nothing is pruned while a snapshot is begun or comes back; the next run does", soft_wrap=True
        )
    if pruned.locked:
        until = f" until {pruned.locked_until:%Y-%m-%d %H:%M} UTC" if pruned.locked_until else ""
        out.print(f"{where}: {counted(pruned.locked, 'object')} stay, locked{until}", soft_wrap=True)


def _whose(site: Site, label: str, name: str | None) -> str:
    """Of those of the plan that have the label on any tier that can be read."""
    snapshot = operations.is_snapshot(label)
    if name is not None:
        site.storage_of(name)
        return name
    found: list[str] = []
    trouble: DrError | None = None
    for each in site.file_sets if snapshot else site.plan.databases:
        for tier in site.tiers(each):
            try:
                operations.find_label(site.read_only_repository(each, tier), each, label)
                found.append(each)
                break
            except BackupNotFound as error:
                trouble = trouble or error
            except DrError as error:  # it may be there
                trouble = error
    if len(found) > 1:
        things, option = ("file sets", "--file-set") if snapshot else ("servers", "--server")
        raise UsageError(
            f"{len(found)} {things} have a {'snapshot' if snapshot else 'backup'} {label}",
            hint=f"add {option}: {', '.join(found)}.",
        )
    if not found and (trouble is None or isinstance(trouble, BackupNotFound)):
        hint = "`dr files list SET --tier TIER`" if snapshot else "`dr list --tier TIER`"
        thing = "snapshot" if snapshot else "backup"
        raise BackupNotFound(f"no {thing} {label!r} is on any tier", hint=f"{hint} shows those that there are.")
    if not found and trouble is not None:
        raise trouble
    return found[0]


def _moment(text: str, site: Site) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"not a date: {text!r}", hint="write it like 2027-01-31.") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    if at <= site.clock.now():
        raise UsageError(f"{text} is over", hint="name a date to come.")
    return at


def _named(tiers: Iterable[str]) -> str:
    return ", ".join(tiers) or "no tier, for it was not kept"


def _answer(as_json: bool, document: Any, words: str) -> None:
    print_json(document) if as_json else out.print(words, soft_wrap=True)
