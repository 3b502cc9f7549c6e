"""Reporting as a process of its own: `python -m services.reporting`."""

from libs.common.serving import serve

if __name__ == "__main__":
    serve("services.reporting.main:app")
