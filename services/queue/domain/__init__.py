"""What may happen in the queue, what is refused and why: one module per thing it happens to."""
