"""Benchmarks of trioxport: ``python -m benchmarks``. See README.md beside this file."""
