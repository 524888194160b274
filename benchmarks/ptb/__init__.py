"""``python -m benchmarks ptb``: one bot of python-telegram-bot on several ways to keep its data."""
