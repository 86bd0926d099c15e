"""Measurements: the peak of a function, what an op takes, a device's ceilings."""
