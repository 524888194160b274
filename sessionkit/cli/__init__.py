"""The ``sessionkit`` command."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        from sessionkit.cli.main import run
    except ModuleNotFoundError as error:
        sys.exit(f"sessionkit: {error.name!r} is missing: pip install 'sessionkit[cli]'")
    run()
