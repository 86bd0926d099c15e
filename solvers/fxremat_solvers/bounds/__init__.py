"""Lower bounds on what any schedule costs and takes."""
