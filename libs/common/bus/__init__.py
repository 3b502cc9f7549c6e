"""One bus, two carriers: the same interface over Kafka and over a log table in PostgreSQL."""
