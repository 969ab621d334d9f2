"""`python -m qeval` is `qeval`."""

from qeval.cli.main import main

main(prog_name="qeval")
