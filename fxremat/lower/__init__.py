"""Joint graph to problem, and schedule back to graph."""
