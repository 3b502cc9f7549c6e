"""Gateway: the one door, which authenticates, routes and forwards."""
