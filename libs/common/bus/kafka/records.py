"""Records as the client gives them and as our readers want them."""

from aiokafka.structs import ConsumerRecord

from libs.common.bus.base import Received


def received(record: ConsumerRecord[bytes | None, bytes | None]) -> Received:
    """Read key and headers as text; whatever else somebody has put there must not stop a reader."""
    return Received(
        record.topic,
        _text(record.key),
        record.value,
        {name: _text(value) for name, value in record.headers},
        record.partition,
        record.offset,
    )


def _text(written: bytes | None) -> str:
    return (written or b"").decode("utf-8", "replace")
