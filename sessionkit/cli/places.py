"""The options of the commands that move data from one place to another."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

ToOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--to", help="The store's URL. Without it, what SESSIONKIT_URL or REDIS_URL say."),
]
FromOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--from", help="The store's URL. Without it, what SESSIONKIT_URL or REDIS_URL say."),
]
OverwriteOption: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Write over what is there and differs.")
]
