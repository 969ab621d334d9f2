"""Third stage: questions and a model become scored items; one process a variant."""
