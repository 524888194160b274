"""``python -m tests.fuzz.target [libFuzzer's options] [folders]``: the target as libFuzzer runs it."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["sessionkit.codec"]):
    from tests.fuzz.oracle import decode_or_refuse

# How libFuzzer starts itself again, where it merges.
sys.argv[0] = f"{sys.executable} -m tests.fuzz.target"

atheris.Setup(sys.argv, decode_or_refuse)
atheris.Fuzz()
