"""What the city runs on, for development and for operators."""
