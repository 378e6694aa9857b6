"""`python -m dr_pipelines.embedded demo | ui | clean`."""

from __future__ import annotations

import signal
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.demo import run_demo, summary
from dr_pipelines.embedded.home import PROJECT, Home, home
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.errors import DrError


def demo(place: Home, console: Console) -> int:
    outcome = run_demo(place, console)
    console.print()
    console.print(summary(outcome))
    if not outcome.good:
        console.print("[red]The demo failed: something acknowledged is lost.[/]")
        return 1
    console.print("\nNext: `make ui` opens Dagster on these backups; `make clean` removes them.")
    console.print(f"What every program said: {place.logs}", soft_wrap=True)
    return 0


def ui(place: Home, console: Console) -> int:
    """Dagster on what the demo left, in the foreground, with the stores and the recovered shop running."""
    env = place.load()
    with ExitStack() as stack:
        stack.enter_context(place.stores(env))
        if place.recovered.exists():
            shop = EmbeddedPostgres(place.recovered, port=int(env["DR_SHOP_PORT"]))
            stack.callback(shop.stop)
            shop.start()
        dagster = Runner().start(
            Command(
                [str(Path(sysconfig.get_path("scripts")) / "dagster"), "dev", "-w", "workspace.yaml"],
                env=env,
                cwd=PROJECT,
            ),
            stdout=sys.stdout.fileno(),
            stderr=sys.stderr.fileno(),
        )
        stack.callback(dagster.stop, 30)
        console.print("Dagster's UI is on http://127.0.0.1:3000 in a moment; Ctrl-C ends it.")
        return dagster.wait() or 0


def clean(place: Home, console: Console) -> int:
    place.clean()
    console.print(f"removed {place.path}", soft_wrap=True)
    return 0


def main(arguments: list[str]) -> int:
    commands = {"demo": demo, "ui": ui, "clean": clean}
    console = Console(soft_wrap=True)
    if len(arguments) != 1 or arguments[0] not in commands:
        console.print("usage: python -m dr_pipelines.embedded demo|ui|clean", markup=False)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):  # both end as Ctrl-C does: everything is stopped
        signal.signal(number, signal.default_int_handler)
    try:
        place = home()
        with place.locked():
            return commands[arguments[0]](place, console)
    except DrError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
