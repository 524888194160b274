"""``python -m benchmarks stores``: every driver beside what one would use without it."""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.stores import compare_stores


def main() -> None:
    """Read the arguments and run the benchmark they name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    stores = commands.add_parser("stores", help="the drivers beside cachetools, aiosqlite and redis-py")
    stores.add_argument("--rounds", type=int, default=5, help="measured rounds of each contender (default 5)")
    stores.add_argument("--callers", type=int, nargs="+", default=[1, 16, 128], help="concurrent callers")
    arguments = parser.parse_args()
    asyncio.run(compare_stores(arguments.rounds, arguments.callers))


if __name__ == "__main__":
    main()
