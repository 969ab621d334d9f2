"""Reading what is there: opening models, headers of files, and the proof of what was loaded."""
