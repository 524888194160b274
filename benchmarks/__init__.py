"""Measurements of sessionkit beside named references, in one run: ``python -m benchmarks``."""
