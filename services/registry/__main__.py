"""The registry as a process of its own: `python -m services.registry`."""

from libs.common.serving import serve

serve("services.registry.main:app")
