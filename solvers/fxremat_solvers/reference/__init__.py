"""Solvers that stand on their own: what the search is compared with."""
