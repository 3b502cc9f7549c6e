"""Queue: tickets, calls and counters; nobody waits more than 20 minutes."""
