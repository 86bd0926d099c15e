"""What a plan does: `explain`, the picture, the problem as a file."""
