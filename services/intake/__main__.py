"""Intake as a process of its own: `python -m services.intake`."""

from libs.common.serving import serve

serve("services.intake.main:app")
