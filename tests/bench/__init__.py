"""Measures authserver as its users run it: `scripts/bench --help`, docs/performance.md.

A contestant is whatever can be measured for some seconds: an operation of the server (operations.py), a limit of the
machine (limits.py), another product (peers.py). They take turns, so that a noisy minute spoils all of them alike.
"""
