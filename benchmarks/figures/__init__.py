"""Draws the figures of docs/explanation.md: `python -m benchmarks.figures`."""
