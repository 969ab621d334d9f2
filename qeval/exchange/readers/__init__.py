"""What other tools than lm-eval write, told as lm-eval would: then everything that is known of it holds."""
