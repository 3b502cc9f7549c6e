"""Registry: which units, centres and procedures there are, and which there were."""
