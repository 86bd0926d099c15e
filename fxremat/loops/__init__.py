"""`fxremat.loop`: a step applied many times, reversed in the memory of a few states."""
