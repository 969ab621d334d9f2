"""What others wrote and others read: files of lm-eval, tables of scores, metadata of the Hub."""
