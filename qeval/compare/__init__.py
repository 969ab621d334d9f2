"""Fifth stage: two variants on the same items, row by row."""
