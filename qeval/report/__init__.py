"""Seventh stage: what a person reads. One computed context, rendered to any of the formats."""
