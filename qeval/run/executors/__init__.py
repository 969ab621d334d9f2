"""Where variants are scored: one file for each executor."""
