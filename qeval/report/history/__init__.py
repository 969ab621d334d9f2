"""A variant on a row over several runs: its line, what breaks it, and the limit; and how that is shown."""
