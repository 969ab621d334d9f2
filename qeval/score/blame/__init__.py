"""Blame: which modules of a quantised model move its distribution, one group swapped into the baseline at a
time."""
