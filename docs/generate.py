"""Writes docs/settings.md, events.md and metrics.md from code and catalogue; `make verify` fails where they are not current."""

from importlib import import_module
from pathlib import Path

import yaml
from metrics_in import metrics_in
from vesta_admin.settings import Settings as AdminSettings
from vesta_common.settings import EngineSettings, ServiceSettings, describe
from vesta_local.settings import Settings as LocalSettings

ROOT = Path(__file__).resolve().parents[1]


def pages(root: Path) -> dict[str, str]:
    """The generated pages by file name."""
    return {"metrics.md": metrics_page(root), "settings.md": settings_page(root), "events.md": events_page(root)}


def settings_page(root: Path) -> str:
    """Every setting of every service."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by docs/generate.py. Do not edit. -->",
        "",
        (
            "Each service reads its settings from environment variables at start. An invalid "
            "setting is reported, and the service does not start."
        ),
        "Each setting `X` can also be set as `X_FILE`: the path of a file with the value, such as a mounted Secret.",
        "",
        "## All services",
        "",
        "`<SERVICE>` is the name of the service in capitals: `VESTA_ANNOTATION_POSTGRES_URL`.",
        "",
    ]
    lines += _table(_shared())
    for service in sorted(path.parts[-3] for path in (root / "services").glob("*/vesta_*/settings.py")):
        kind = import_module(f"vesta_{service}.settings").Settings
        own = [
            row
            for row, field in zip(describe(kind), kind.model_fields, strict=True)
            if field not in ServiceSettings.model_fields
        ]
        if own:
            lines += ["", f"## {service}", "", *_table(own)]
    lines += [
        "",
        "## vesta-admin",
        "",
        "The settings of PostgreSQL, S3, Kafka and the log are the same as for all services. Further settings:",
        "",
    ]
    fields = zip(describe(AdminSettings), AdminSettings.model_fields, strict=True)
    lines += _table([row for row, field in fields if field not in EngineSettings.model_fields])
    lines += [
        "",
        "## make up, make test",
        "",
        (
            "External engines: the settings of PostgreSQL, S3 and Kafka of all services with the "
            "prefix `VESTA_LOCAL_`. Further settings:"
        ),
        "",
    ]
    fields = zip(describe(LocalSettings), LocalSettings.model_fields, strict=True)
    lines += _table([row for row, field in fields if field in ("postgres_url", "triton_address")])
    return "\n".join(lines) + "\n"


def _shared() -> list[tuple[str, str, str, str]]:
    return [(f"VESTA_<SERVICE>_{name}", kind, default, what) for name, kind, default, what in describe(ServiceSettings)]


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    head = ["| variable | type | default | description |", "|---|---|---|---|"]
    return head + [f"| `{name}` | {kind} | {default or '(empty)'} | {what} |" for name, kind, default, what in rows]


def events_page(root: Path) -> str:
    """Every topic with its events and consumers."""
    lines = [
        "# Events",
        "",
        "<!-- Written by docs/generate.py. Do not edit. -->",
        "",
        "CloudEvents 1.0 on Kafka; see protos/topics/.",
        "",
    ]
    graph = ["```mermaid", "flowchart LR"]
    sections: list[str] = []
    for path in sorted((root / "protos" / "topics").glob("*.yaml")):
        topic = yaml.safe_load(path.read_text())
        graph += [
            f"    {topic['owner']} -- {topic['topic'].split('.')[2]} --> {consumer['service']}"
            for consumer in topic["consumers"]
        ]
        sections += [
            "",
            f"## {topic['topic']}",
            "",
            f"{topic['description']} Published by {topic['owner']}, keyed by {topic['key']}.",
            "",
        ]
        sections += ["| event | description | message |", "|---|---|---|"]
        sections += [
            f"| `{event['type']}` | {event['description']} | `{event['message']}` |" for event in topic["events"]
        ]
        consumers = ", ".join(f"{consumer['service']} ({consumer['purpose']})" for consumer in topic["consumers"])
        sizes = f"values of at most {topic['size_max_bytes']:,} bytes"
        replicas = f"{topic['replicas']} replicas, at least {topic['in_sync_replicas_min']} in sync"
        kept = f"kept {topic['retention']} days"
        sections += [
            "",
            f"Consumed by {consumers}. {topic['partitions']} partitions, {replicas}; {kept}; {sizes}.",
        ]
    return "\n".join([*lines, *graph, "```", *sections]) + "\n"


def metrics_page(root: Path) -> str:
    """Every metric of every service."""
    lines = [
        "# Metrics",
        "",
        "<!-- Written by docs/generate.py. Do not edit. -->",
        "",
        (
            "Each service exports metrics for Prometheus at `/metrics` of its metrics address. "
            "`<service>` is the name of the service."
        ),
        "",
        "| metric | kind | description |",
        "|---|---|---|",
    ]
    lines += [f"| `{metric.name}` | {metric.kind} | {metric.text} |" for metric in metrics_in(root)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, text in pages(ROOT).items():
        (ROOT / "docs" / name).write_text(text)
