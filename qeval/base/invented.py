"""What the toy model says of its numbers: by these words every output knows them."""

from __future__ import annotations

INVENTED = "This is the toy model: every number here is invented."
"""A note of the provenance of all that the toy answered."""
