"""Greedy walks and annealing over edits of a schedule."""
