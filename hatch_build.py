"""Ship ``examples/depot_bot.py`` inside the wheel, where ``sessionkit demo`` finds it."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the example to a standard wheel.

    The ``force-include`` table would add it to editable wheels too, and so leave a second ``sessionkit``
    directory in site-packages.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file; hatchling calls this before it builds a wheel."""
        if version == "standard":
            build_data["force_include"]["examples/depot_bot.py"] = "sessionkit/cli/depot_bot.py"
