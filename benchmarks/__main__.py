"""``python -m benchmarks``: sessionkit beside what one would use without it, in one run."""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path

from sessionkit.testing.servers import SERVER_NAMES


def main() -> None:
    """Read the arguments and run the benchmark they name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_stores(commands.add_parser("stores", help="the drivers beside cachetools, aiosqlite and redis-py"))
    _add_redis(commands.add_parser("redis", help="the Redis driver beside a ceiling, redis-py and its peers"))
    _add_resilience(
        commands.add_parser("resilience", help="a resilient store beside its driver, and in outages")
    )
    _add_codec(commands.add_parser("codec", help="the codec beside msgpack, msgspec, pickle and json"))
    _add_ptb(commands.add_parser("ptb", help="a bot on python-telegram-bot's persistence, and on ours"))
    arguments = parser.parse_args()
    arguments.run(arguments)


def _add_stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contender (default 5)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 128], help="concurrent callers")
    parser.set_defaults(run=_run_stores)


def _add_redis(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(SERVER_NAMES)
    parser.add_argument("--server", choices=SERVER_NAMES, default="redis-system", help=f"one of {names}")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), help="default: both, if installed")
    parser.add_argument("--callers", type=_numbers, help="concurrent callers (default 1,16,128,1000,10000)")
    parser.add_argument("--only", choices=("get", "put"), help="leave out the other")
    parser.add_argument("--contenders", type=_names, help="their names, by commas (default: all)")
    parser.add_argument("--rounds", type=int, help="measured rounds of each contender (default 5)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default 0.2)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of 0.02 seconds with 1,16,128 callers"
    )
    parser.add_argument("--seed", type=int, help="decides the order of turns (default: a new one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them")
    parser.set_defaults(run=_run_redis, parser=parser)


def _add_resilience(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(SERVER_NAMES)
    parser.add_argument("--server", choices=SERVER_NAMES, default="redis-system", help=f"one of {names}")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="default: asyncio")
    parser.add_argument("--parts", type=_names, help="which, by commas (default: all)")
    parser.add_argument("--rounds", type=int, help="measured rounds of each contender (default 25)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default 0.1)")
    parser.add_argument("--quick", action="store_true", help="all of it small, over in seconds")
    parser.add_argument("--seed", type=int, help="decides the order of turns (default: a new one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    parser.set_defaults(run=_run_resilience, parser=parser)


def _add_codec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help="measured rounds of each contender (default 50)")
    parser.add_argument("--quick", action="store_true", help="two rounds, over in a second")
    parser.add_argument("--seed", type=int, help="decides the order of turns (default: a new one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    parser.set_defaults(run=_run_codec)


def _add_ptb(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(SERVER_NAMES)
    parser.add_argument("--server", choices=SERVER_NAMES, default="redis-system", help=f"one of {names}")
    parser.add_argument("--parts", type=_names, help="which, by commas (default: all)")
    parser.add_argument("--rounds", type=int, help="measured rounds of each contender (default 7)")
    parser.add_argument("--full", action="store_true", help="start with a million users, too; slow")
    parser.add_argument("--quick", action="store_true", help="all of it small, over in seconds")
    parser.add_argument("--seed", type=int, help="decides the order of turns (default: a new one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    parser.set_defaults(run=_run_ptb, parser=parser)


def _run_stores(arguments: argparse.Namespace) -> None:
    from benchmarks.stores import compare_stores

    asyncio.run(compare_stores(arguments.rounds, arguments.callers))


def _run_redis(arguments: argparse.Namespace) -> None:
    from benchmarks.against_redis import ENTRANTS, compare_redis, installed_loops
    from benchmarks.race import WORKS, Plan

    known = {entrant.name for entrant in ENTRANTS}
    if unknown := set(arguments.contenders or ()) - known:
        arguments.parser.error(f"no such contender: {sorted(unknown)}; there are {sorted(known)}")
    here = installed_loops()
    loops = here if arguments.loop in {None, "both"} else (arguments.loop,)
    if not set(loops) <= set(here) or (arguments.loop == "both" and len(here) == 1):
        arguments.parser.error("uvloop is not installed")
    quick = arguments.quick
    plan = Plan(
        works=(arguments.only,) if arguments.only else WORKS,
        callers=arguments.callers or ((1, 16, 128) if quick else (1, 16, 128, 1_000, 10_000)),
        rounds=arguments.rounds or (1 if quick else 5),
        seconds=arguments.seconds or (0.02 if quick else 0.2),
        seed=_seed(arguments),
    )
    compare_redis(
        plan,
        server=arguments.server,
        loops=loops,
        contenders=arguments.contenders,
        json=arguments.json,
        svg=arguments.svg,
    )


def _run_resilience(arguments: argparse.Namespace) -> None:
    from benchmarks.against_redis import installed_loops
    from benchmarks.race import WORKS, Plan
    from benchmarks.resilience import PARTS, Scale, measure_resilience

    if unknown := set(arguments.parts or ()) - set(PARTS):
        arguments.parser.error(f"no such part: {sorted(unknown)}; there are {list(PARTS)}")
    if arguments.loop not in installed_loops():
        arguments.parser.error("uvloop is not installed")
    quick = arguments.quick
    plan = Plan(
        works=WORKS,
        callers=(1, 16, 128) if quick else (1, 16, 128, 1_000),
        rounds=arguments.rounds or (1 if quick else 25),
        seconds=arguments.seconds or (0.02 if quick else 0.1),
        seed=_seed(arguments),
    )
    scale = (
        Scale(plan, timeout=0.2, writes=2_000, keys=500)
        if quick
        else Scale(plan, timeout=5.0, writes=100_000, keys=10_000)
    )
    measure_resilience(
        scale,
        server=arguments.server,
        loop=arguments.loop,
        parts=arguments.parts or PARTS,
        save_to=arguments.json,
    )


def _run_codec(arguments: argparse.Namespace) -> None:
    from benchmarks.codec import compare_codecs

    compare_codecs(arguments.rounds or (2 if arguments.quick else 50), _seed(arguments), arguments.json)


def _run_ptb(arguments: argparse.Namespace) -> None:
    from benchmarks.ptb.bot import CONCURRENT
    from benchmarks.ptb.compare import PARTS, Scale, compare_ptb

    if unknown := set(arguments.parts or ()) - set(PARTS):
        arguments.parser.error(f"no such part: {sorted(unknown)}; there are {list(PARTS)}")
    quick = arguments.quick
    scale = Scale(
        rounds=arguments.rounds or (1 if quick else 7),
        starts=1 if quick else 3,
        kills=1 if quick else 3,
        steps=50 if quick else 1_000,
        rate=200,
        users=(10, 100) if quick else (1_000, 10_000, 100_000, *([1_000_000] if arguments.full else [])),
        among=100 if quick else 100_000,
        updates=20 if quick else 1_000,
        answered=5 if quick else 200,
        concurrent=(CONCURRENT,) if quick else (CONCURRENT, 1),
        seed=_seed(arguments),
    )
    compare_ptb(scale, server=arguments.server, parts=arguments.parts or PARTS, save_to=arguments.json)


def _seed(arguments: argparse.Namespace) -> int:
    seed: int | None = arguments.seed
    return random.SystemRandom().randrange(2**32) if seed is None else seed


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


if __name__ == "__main__":
    main()
