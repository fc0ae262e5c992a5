"""Figures of the docs: `python -m benchmarks.figures`."""
