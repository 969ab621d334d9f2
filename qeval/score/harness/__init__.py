"""The only room that speaks with lm-eval; `door` is what the rest of scoring calls."""
