"""The queue as a process of its own: `python -m services.queue`."""

from libs.common.serving import serve

if __name__ == "__main__":
    serve("services.queue.main:app")
