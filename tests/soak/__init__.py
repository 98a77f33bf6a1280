"""The storms for minutes instead of seconds: ``python -m tests.soak --minutes 10 --seed 1``."""
