"""lm-eval's files, both ways: what its names and fields are is decided once, in `results` and `samples`."""
