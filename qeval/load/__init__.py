"""Second stage: a variant becomes a model in memory that is proved to be it."""
