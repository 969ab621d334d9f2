"""The conductor: an order becomes jobs, and jobs become results."""
