"""The command line `dr`."""

from __future__ import annotations

import sys

from dr_pipelines.errors import DrError


def main() -> None:
    """Run a command; an error that a person can meet is told without a traceback."""
    from dr_pipelines.cli.app import app

    try:
        app()
    except DrError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
