"""Scoring: requests in, log-likelihoods out."""
