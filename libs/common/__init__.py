"""Mechanism that knows no word of the domain: database, events, bus, time, identity, health."""
