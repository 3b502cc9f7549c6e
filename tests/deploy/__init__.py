"""Tests of what the city runs on."""
