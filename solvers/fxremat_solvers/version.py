"""The version of both packages, written here alone."""

__version__ = "0.1.0"
