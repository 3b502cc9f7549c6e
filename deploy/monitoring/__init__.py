"""Prometheus and Alertmanager: configuration, alert rules, and the programs to try them with."""

from deploy.monitoring.programs import CannotRun, find

__all__ = ["CannotRun", "find"]
