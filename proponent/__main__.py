"""`python -m proponent` is `proponent`."""

from .cli import main

main()
