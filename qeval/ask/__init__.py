"""First stage: a user's words become an order, or a refusal in words."""
