"""The description of a service's API: what every call has in common is said once, not per route."""
