"""Benchmarks: `make bench` runs those of `listed`; each is a command of its own too."""
