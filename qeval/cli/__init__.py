"""The door: words in, one call, text out, exit code."""
