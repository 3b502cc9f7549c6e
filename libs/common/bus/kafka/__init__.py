"""The carrier of production: Apache Kafka through aiokafka."""

from libs.common.bus.kafka.bus import KafkaBus, open_kafka_bus
from libs.common.bus.kafka.connection import Connection

__all__ = ["Connection", "KafkaBus", "open_kafka_bus"]
