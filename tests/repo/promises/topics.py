"""The catalogue of topics is whole and tells of the code what is true."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import message_class_of
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_gateway.events.tail import event_topics
from vesta_pipelining.event_handlers import FRAME
from vesta_pipelining.frames import FRAME_BYTES_MAX

from promises.sources import services, strings_named

_KEYS = (
    "topic",
    "owner",
    "key",
    "description",
    "events",
    "consumers",
    "partitions",
    "retention",
    "size_max_bytes",
    "cleanup",
    "replicas",
    "in_sync_replicas_min",
)
_EVENT_TYPE = re.compile(r"vesta\.\w+\.\w+\.v1\.\w+")


def incomplete_topics(root: Path) -> list[str]:
    """Every topic says all there is to say of it, and names services that there are."""
    found = []
    for path, topic in _topics(root):
        found += [f"{path.name} has no {key}" for key in _KEYS if not topic.get(key)]
        if topic.get("topic") != path.stem:
            found.append(f"{path.name} is not named after its topic")
        for role in [topic.get("owner"), *(consumer["service"] for consumer in topic.get("consumers") or ())]:
            if role and role not in services(root):
                found.append(f"{path.name} names the unknown service {role}")
    return found


def unreadable_examples(root: Path) -> list[str]:
    """Every event has a golden example that can still be read. Frames bear an image and no message: theirs lists headers."""
    found = []
    for path, topic in _topics(root):
        for event in topic.get("events") or ():
            example = path.parent / event.get("example", "")
            if not example.is_file():
                found.append(f"{event['type']} has no example")
            elif event["type"] != FRAME:
                try:
                    json_format.ParseDict(json.loads(example.read_text()), message_class_of(event["type"])())
                except (json_format.ParseError, InvalidArgument) as error:
                    found.append(f"{example.name} cannot be read any more: {error}")
    return found


def events_of_no_topic(root: Path) -> list[str]:
    """Every event is in the catalogue."""
    listed = {event["type"] for _, topic in _topics(root) for event in topic.get("events") or ()}
    found = []
    for path in sorted((root / "protos" / "vesta").glob("*/v1/events.proto")):
        service = path.parts[-3]
        told = re.findall(r"Type vesta\.[\w.]+.*?^message (\w+) \{", path.read_text(), re.MULTILINE | re.DOTALL)
        known = {_message_name(event_type) for event_type in listed if f".{service}." in event_type}
        found += [f"vesta.{service}.v1.{name} is in no topic of the catalogue" for name in told if name not in known]
    return found


def untrue_consumers(root: Path) -> list[str]:
    """The consumers that the catalogue lists, with their groups, are those that the code has; the gateway's tail is in no group."""
    told = {
        (topic["topic"], consumer["service"], consumer.get("group"))
        for _, topic in _topics(root)
        for consumer in topic.get("consumers") or ()
    }
    true = {reading for service in services(root) for reading in _readings(root, service)}
    if "gateway" in services(root):
        true |= {(topic["topic"], "gateway", None) for _, topic in _topics(root) if topic["topic"] in event_topics()}
    found = [f"{topic} is not consumed by {service} in the group {group}" for topic, service, group in told - true]
    found += [
        f"{topic} is consumed by {service} in the group {group} and does not say so"
        for topic, service, group in true - told
    ]
    return sorted(found)


def untrue_sizes(root: Path) -> list[str]:
    """The largest value that the catalogue allows on a topic is the largest that the code puts or takes there."""
    found = []
    for path, topic in _topics(root):
        true = FRAME_BYTES_MAX if f"{topic['topic']}.captured" == FRAME else EVENT_BYTES_MAX
        if topic.get("size_max_bytes") != true:
            found.append(f"{path.name} says size_max_bytes {topic.get('size_max_bytes')}, the code {true}")
    return found


def _topics(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((root / "protos" / "topics").glob("*.yaml")):
        yield path, yaml.safe_load(path.read_text())


def _message_name(event_type: str) -> str:
    _, _, resource, _, what = event_type.split(".")
    return "".join(word.title() for word in f"{resource}_{what}".split("_"))


def _readings(root: Path, service: str) -> Iterator[tuple[str, str, str]]:
    """What a service reads, as (topic, service, group): the types that each `Consumer(SERVICE, "word", …)` of app.py handles."""
    folder = root / "services" / service / f"vesta_{service}"
    handlers = next(folder.rglob("event_handlers.py"), None)
    if handlers is None or not (folder / "app.py").exists():
        return
    events = ast.parse(handlers.read_text())
    for node in ast.walk(ast.parse((folder / "app.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Consumer":
            word = ast.literal_eval(node.args[1])
            for event_type in _event_types([*node.args[2:], *(keyword.value for keyword in node.keywords)], events):
                yield event_type.rpartition(".")[0], service, f"{service}.{word}"


def _event_types(expressions: list[ast.expr], events: ast.Module) -> set[str]:
    """The event types in some expressions: written out, by a constant of event_handlers.py, or returned by a function of it."""
    functions = {node.name: node for node in ast.walk(events) if isinstance(node, ast.FunctionDef)}
    constants = strings_named(events)
    nodes = [node for expression in expressions for node in ast.walk(expression)]
    for node in list(nodes):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in functions:
            nodes += ast.walk(functions[node.func.attr])
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    texts |= {constants.get(node.id, "") for node in nodes if isinstance(node, ast.Name)}
    return {text for text in texts if _EVENT_TYPE.fullmatch(text)}
