"""Fidelity: how far a variant's distribution of the next token is from the baseline's, exactly."""
