"""The problem, its schedules, and what replays and compares them."""
