"""``splitpipe plan``: what an epoch of a remote dataset costs, before it is read.

Responsible for: showing the library's plan, to people and as JSON. Only the manifest is fetched.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from splitpipe.cli.sources import AsJson, say_json
from splitpipe.remote import manifest_at, plan_reading

__all__ = ["plan"]


def plan(
    url: Annotated[str, typer.Argument(help="Where the dataset lies: a url, or a directory.")],
    shuffle: Annotated[str, typer.Option(help="The order: none, binwise or global.")] = "none",
    window: Annotated[int, typer.Option(help="Bins that are shuffled together.", min=1)] = 1,
    lanes: Annotated[
        int, typer.Option(help="Stretches with an order each; machines have their own.", min=1)
    ] = 1,
    cache_limit: Annotated[
        str | None, typer.Option(help="Most bytes in the cache, as 50GB; no limit unless said.")
    ] = None,
    machines: Annotated[
        int, typer.Option(help="How many machines share an epoch, each with a cache.", min=1)
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Say how many requests and bytes an epoch of a remote dataset costs."""
    from splitpipe.cache import parse_nbytes

    found = plan_reading(
        manifest_at(url),
        None if shuffle == "none" else shuffle,
        window=window,
        lanes=lanes,
        cache_limit=None if cache_limit is None else parse_nbytes(cache_limit),
        machines=machines,
    )
    if as_json:
        say_json(asdict(found))
    else:
        print(found)
