"""The ``sessionkit`` command."""

import sys

from sessionkit.extras import needing

__all__ = ["main"]


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        with needing("cli"):
            from sessionkit.cli.main import run
    except ModuleNotFoundError as error:
        sys.exit(f"sessionkit: {error}")
    run()
