"""Programs with whole and other unknowns: how they are written down, and who solves them."""
