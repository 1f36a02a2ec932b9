"""Samples of metrics."""

from outfeed.metrics import PREFIX, Metrics


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of the sample of that name and labels, or 0."""
    return metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0
