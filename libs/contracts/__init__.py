"""What services say to each other: events by producing service, codes, and who may do what."""
