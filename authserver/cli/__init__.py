"""The command line: one module a noun, and `program`, which puts them together."""

from authserver.cli.program import main

__all__ = ["main"]
