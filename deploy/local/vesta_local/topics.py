"""The topics of the platform, read from the event catalogue."""

from functools import cache
from pathlib import Path

import yaml

CATALOGUE = Path(__file__).resolve().parents[3] / "protos" / "topics"
SERVICES_WITH_CONSUMERS = ("datasets", "annotation", "training", "serving", "pipelining", "conductor")
DEAD_LETTER_PARTITIONS = 1


@cache
def topics() -> dict[str, int]:
    """Every topic with its number of partitions, dead letters included."""
    found = {}
    for path in sorted(CATALOGUE.glob("*.yaml")):
        entry = yaml.safe_load(path.read_text())
        found[entry["topic"]] = int(entry["partitions"])
    return found | {f"vesta.{service}.dead_letter.v1": DEAD_LETTER_PARTITIONS for service in SERVICES_WITH_CONSUMERS}
