"""`python -m services.cli` is `motcua`."""

from services.cli import main

main()
