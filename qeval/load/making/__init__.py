"""Making checkpoints here: calibration texts, the walk through the blocks, GPTQ and AWQ."""
