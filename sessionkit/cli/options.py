"""The options that several commands take."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", help="The store's URL. Without it, what SESSIONKIT_URL or REDIS_URL say."),
]

PrefixOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--prefix", help="What the keys start with. Without it, what SESSIONKIT_PREFIX says."),
]
