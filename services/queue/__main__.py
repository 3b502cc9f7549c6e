"""The queue as a process of its own: `python -m services.queue`."""

from libs.common.serving import serve

serve("services.queue.main:app")
