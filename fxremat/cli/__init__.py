"""The command `fxremat`: what the package does, from a shell."""
