"""Sixth stage: whether the loss is allowed."""
