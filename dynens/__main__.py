"""`python -m dynens` is the command `dynens`."""

from dynens.cli import main

main()
