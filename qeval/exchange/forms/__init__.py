"""The forms that a run is exported in: one file a form, which says what it writes in one function."""
