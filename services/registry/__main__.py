"""The registry as a process of its own: `python -m services.registry`."""

from libs.common.serving import serve

if __name__ == "__main__":
    serve("services.registry.main:app")
