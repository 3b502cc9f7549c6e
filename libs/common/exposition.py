"""Writes metrics in Prometheus' text format; the client's own writer takes most of its time for
escaping, at every scrape anew, names and labels that never change."""

from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.utils import floatToGoString

# When each counter began is asked for by nobody, and would be every tenth line.
disable_created_metrics()

_TEXT: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_LABEL: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Exposition:
    """The text of a registry: remembers how each sample's line begins.

    It remembers a line for each child the registry has had; their number is bounded.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Take the registry; `text` collects."""
        self._registry = registry
        self._heads: dict[tuple[str, ...], str] = {}

    def text(self) -> bytes:
        """Collect and write every metric as it is now."""
        heads, lines = self._heads, []
        for metric in self._registry.collect():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            lines.append(f"# HELP {name} {metric.documentation.translate(_TEXT)}\n")
            lines.append(f"# TYPE {name} {metric.type}\n")
            for sample in metric.samples:
                key = (sample.name, *sample.labels.values())
                head = heads.get(key)
                if head is None:
                    head = heads[key] = _head(sample.name, sample.labels)
                lines.append(f"{head} {floatToGoString(sample.value)}\n")
        return "".join(lines).encode()


def _head(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{label}="{told.translate(_LABEL)}"' for label, told in labels.items())
    return f"{name}{{{pairs}}}" if pairs else name
