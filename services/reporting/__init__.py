"""Reporting: what every unit received, resolved and still owes, and how long people waited."""
