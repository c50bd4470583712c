"""Benchmarks as their authors distribute them."""
