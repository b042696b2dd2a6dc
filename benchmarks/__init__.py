"""Benchmarks: each bar of the project as one figure, beside a bare commit on the same disk."""
