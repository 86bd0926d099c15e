"""Budgets, options, and the schedule that is chosen under them."""
