"""qeval: what quantisation cost a language model, whether the loss is real, whether it is allowed."""

__version__ = "0.1.0"
