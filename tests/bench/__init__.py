"""Measurements: each is a command that prints what the documents quote."""
