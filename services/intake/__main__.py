"""Intake as a process of its own: `python -m services.intake`."""

from libs.common.serving import serve

if __name__ == "__main__":
    serve("services.intake.main:app")
