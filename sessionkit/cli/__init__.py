"""The ``sessionkit`` command."""

from sessionkit.cli.main import main

__all__ = ["main"]
