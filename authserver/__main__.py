"""`python -m authserver`."""

from authserver.cli import main

main()
