"""Fourth stage: runs on disk."""
