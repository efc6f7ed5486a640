"""Benchmarks; each module's docstring describes what it measures and where its results are written."""
