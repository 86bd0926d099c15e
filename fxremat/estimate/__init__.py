"""What a step would take on a device that isn't there: memory, time, and what budgets cost."""
