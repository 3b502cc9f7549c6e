"""Prometheus and Alertmanager: their configuration, the alert rules, and the programs to try them."""

from deploy.monitoring.programs import CannotRun, find

__all__ = ["CannotRun", "find"]
