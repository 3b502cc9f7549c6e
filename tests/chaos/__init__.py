"""Crashes and contention under load, held against a ledger of what was acknowledged."""
