"""What runs the rewritten graphs, and foretells what they allocate."""
