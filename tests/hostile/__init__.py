"""Hostile input: corpora against the whole city through its door, and its description fuzzed."""
