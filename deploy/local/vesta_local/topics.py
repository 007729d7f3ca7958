"""The topics of the platform, read from the event catalogue."""

from functools import cache
from pathlib import Path

import yaml
from vesta_common.dead_letters import topic_of

CATALOGUE = Path(__file__).resolve().parents[3] / "protos" / "topics"
DEAD_LETTER_PARTITIONS = 1


@cache
def topics() -> dict[str, int]:
    """Every topic with its number of partitions, the dead letters of each consuming service included."""
    entries = [yaml.safe_load(path.read_text()) for path in sorted(CATALOGUE.glob("*.yaml"))]
    consuming = {consumer["service"] for entry in entries for consumer in entry.get("consumers") or ()}
    catalogued = {entry["topic"]: int(entry["partitions"]) for entry in entries}
    return catalogued | {topic_of(service): DEAD_LETTER_PARTITIONS for service in sorted(consuming)}
