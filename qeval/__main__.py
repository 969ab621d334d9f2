"""`python -m qeval` is `qeval`."""

from qeval.cli import main

main(prog_name="qeval")
