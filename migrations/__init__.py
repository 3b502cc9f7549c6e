"""The single Alembic environment: one ini section per schema."""
