"""Reporting as a process of its own: `python -m services.reporting`."""

from libs.common.serving import serve

serve("services.reporting.main:app")
