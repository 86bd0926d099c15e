"""Benchmarks and the demo: real models, measured the same way by every method."""
