"""``python -m tests.fuzz``: look for bytes that decoding does not stand, guided by what code they reach.

Needs ``pip install atheris``. It starts from the corpus of the suite and adds to it what reaches more. A
finding is printed by libFuzzer and left in the working directory as ``crash-…``: once it is mended, its
hexadecimal belongs into the corpus.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.fuzz.oracle import CORPUS, read_corpus

LONGEST = 4096


def main() -> int:
    """Fuzz for a while, then keep the least corpus that reaches as much."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for how long (default 60)")
    parser.add_argument("--max-len", type=int, default=LONGEST, help=f"longest input (default {LONGEST})")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, least = Path(folder, "found"), Path(folder, "least")
        found.mkdir()
        least.mkdir()
        for data in read_corpus():
            (found / sha256(data).hexdigest()[:16]).write_bytes(data)
        options = [f"-max_len={arguments.max_len}", "-timeout=5", "-rss_limit_mb=1024"]
        code = _run(f"-max_total_time={arguments.seconds}", *options, str(found))
        _run("-merge=1", *options, str(least), str(found))
        inputs = sorted((path.read_bytes() for path in least.iterdir()), key=lambda data: (len(data), data))
        CORPUS.write_text("".join(f"{data.hex()}\n" for data in inputs if data), "ascii")
    return code


def _run(*options: str) -> int:
    return subprocess.run([sys.executable, "-m", "tests.fuzz.target", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
