"""`python -m dr_pipelines.embedded demo | ui | clean`."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.demo import run_demo, summary
from dr_pipelines.embedded.home import PROJECT, SERVER, Home, home, program
from dr_pipelines.embedded.postgres import EmbeddedPostgres, free_port, own_folder
from dr_pipelines.endings import on_ending
from dr_pipelines.errors import DrError

_FONTS = re.compile(r"@font-face {.*?}\s*", re.DOTALL)
"""Rich's pictures load fonts from a server; any monospaced one will do."""
_PICTURE_WIDTH = 112
UI_PORT = 3000


def demo(place: Home, console: Console, picture: Path | None = None) -> int:
    """`picture`: an SVG of what the terminal shows, up to the summary."""
    outcome = run_demo(place, console)
    console.print()
    console.print(summary(outcome))
    if picture is not None:
        picture.write_text(_FONTS.sub("", console.export_svg(title="make demo", clear=False)))
    if not outcome.good:
        console.print("[red]The demo failed: something acknowledged is lost.[/]")
        return 1
    console.print("\nNext: `make ui` opens Dagster on these backups; `make clean` removes them.")
    console.print(f"What every program said: {place.logs}", soft_wrap=True)
    return 0


def ui(place: Home, console: Console) -> int:
    """Dagster on what the demo left, in the foreground, with the stores, the recovered shop and its WAL stream."""
    env = place.load()
    with ExitStack() as stack:
        stack.callback(place.end_dagster)
        stack.enter_context(place.stores(env))
        if place.recovered.exists():
            shop = EmbeddedPostgres(place.recovered, port=int(env["DR_SHOP_PORT"]))
            stack.callback(shop.stop)
            shop.start()
            # Without it, a backup that somebody takes in the UI would have no WAL to become consistent.
            stack.callback(place.start(env, "wal stream", "dr", "wal", "stream", SERVER).stop)
        port = str(free_port(UI_PORT))
        dagster = Runner().start(
            Command([program("dagster"), "dev", "-w", "workspace.yaml", "-p", port], env=env, cwd=PROJECT),
            stdout=sys.stdout.fileno(),
            stderr=sys.stderr.fileno(),
        )
        stack.callback(dagster.stop, 30)
        console.print(f"Dagster's UI is on http://127.0.0.1:{port}/asset-groups in a moment; Ctrl-C ends it.")
        return dagster.wait() or 0


def clean(place: Home, console: Console) -> int:
    place.remove()
    console.print(f"removed {place.path}", soft_wrap=True)
    console.print(f"kept PostgreSQL's programs, which all checkouts share, in {own_folder()}", soft_wrap=True)
    return 0


def main(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments)
    commands: dict[str, Callable[[Home, Console], int]] = {
        "demo": partial(demo, picture=asked.svg),
        "ui": ui,
        "clean": clean,
    }
    console = Console(soft_wrap=True, record=asked.svg is not None, width=_PICTURE_WIDTH if asked.svg else None)
    on_ending(_interrupt)
    try:
        place = home()
        with place.locked():
            return commands[asked.command](place, console)
    except DrError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("everything is stopped")
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Once: a second one must not cut the stopping short."""
    on_ending(lambda *_: None)
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(sys.stderr.fileno(), b"\ninterrupted; stopping everything ...\n")
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dr_pipelines.embedded")
    parser.add_argument("command", choices=("demo", "ui", "clean"))
    parser.add_argument("--svg", type=Path, help="write the demo's ending as a picture, too")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
