"""A real Apache Kafka broker without Docker: Maven brings the server, `Broker` runs it."""

from deploy.kafka.broker import Broker
from deploy.kafka.server import CannotRun, missing_tools

__all__ = ["Broker", "CannotRun", "missing_tools"]
