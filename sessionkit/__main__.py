"""``python -m sessionkit``: the ``sessionkit`` command."""

from sessionkit.cli import main

main()
