"""The ground that every stage stands on: records, errors, messages, files, numbers."""
