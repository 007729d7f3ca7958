"""What this repository promises about itself: each promise is a function of the repository's root that answers what breaks it."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from google.protobuf import json_format
from metrics_in import metrics_in
from vesta_common.errors import InvalidArgument
from vesta_common.events import message_class_of

SERVICES = ("connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor", "gateway")
_PACKAGES = tuple(f"vesta_{service}" for service in SERVICES)
_MAKE_TARGET = re.compile(r"\bmake ([a-z-]+)")
_REASON = re.compile(r"reason\s*=\s*\"([A-Z][A-Z0-9_]+)\"")


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """Our own modules below these folders: no tests, nothing generated."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if "tests" not in path.parts and "vesta_contracts" not in path.parts:
                yield path


def services_that_import_services(root: Path) -> list[str]:
    """Services share contracts and plumbing, never each other."""
    found = []
    for path in python_files(root, "services"):
        own = next(part for part in path.parts if part in _PACKAGES)
        for name in _imports(path):
            package = name.split(".")[0]
            if package in _PACKAGES and package != own:
                found.append(f"{path.relative_to(root)} imports {name}")
    return found


def readers_of_the_environment(root: Path) -> list[str]:
    """The environment is read in settings.py alone."""
    found = []
    for path in python_files(root, "services", "libs"):
        if path.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_environ = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
            if is_environ and isinstance(node.value, ast.Name) and node.value.id == "os":
                found.append(f"{path.relative_to(root)}:{node.lineno} reads the environment")
    return found


def modules_without_a_first_line(root: Path) -> list[str]:
    """Every file says in its first line why it exists."""
    found = []
    for path in python_files(root, "services", "libs", "deploy", "examples", "benchmarks"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if not docstring or not docstring.splitlines()[0].rstrip().endswith((".", ":", "?", "!")):
            found.append(f"{path.relative_to(root)} does not say in its first line why it exists")
    return found


def patched_tests(root: Path) -> list[str]:
    """Tests pass things in; they patch nothing."""
    found = []
    for path in sorted(root.rglob("test_*.py")):
        if ".venv" in str(path.relative_to(root)):
            continue
        if any(name.startswith("unittest.mock") for name in _imports(path)):
            found.append(f"{path.relative_to(root)} patches")
    return found


def incomplete_topics(root: Path) -> list[str]:
    """Every topic has an owner, consumers and a golden example an event that can still be read; every event is in the catalogue."""
    found, listed = [], set()
    folder = root / "protos" / "topics"
    for path in sorted(folder.glob("*.yaml")):
        topic = yaml.safe_load(path.read_text())
        missing = [
            key
            for key in (
                "topic",
                "owner",
                "key",
                "description",
                "events",
                "consumers",
                "partitions",
                "retention",
                "size_max_bytes",
            )
            if not topic.get(key)
        ]
        found += [f"{path.name} has no {key}" for key in missing]
        if topic.get("topic") != path.stem:
            found.append(f"{path.name} is not named after its topic")
        for role in [topic.get("owner"), *(consumer.get("service") for consumer in topic.get("consumers") or ())]:
            if role not in SERVICES:
                found.append(f"{path.name} names the unknown service {role}")
        for event in topic.get("events") or ():
            listed.add(event["type"])
            found += _unreadable_example(folder, event)
    for path in sorted((root / "protos" / "vesta").glob("*/v1/events.proto")):
        service = path.parts[-3]
        for name in re.findall(
            r"Type vesta\.[\w.]+.*?^message (\w+) \{", path.read_text(), flags=re.MULTILINE | re.DOTALL
        ):
            if not any(_message_name(event_type) == name and f".{service}." in event_type for event_type in listed):
                found.append(f"vesta.{service}.v1.{name} is in no topic of the catalogue")
    return found


def _unreadable_example(folder: Path, event: dict[str, str]) -> list[str]:
    """What is wrong with an event's golden example. Frames bear an image and no message: their example lists headers."""
    path = folder / event.get("example", "")
    if not path.is_file():
        return [f"{event['type']} has no example"]
    content = json.loads(path.read_text())
    if event.get("message", "").startswith("image/") or event["type"].startswith("vesta.pipelining.frame."):
        return []
    try:
        json_format.ParseDict(content, message_class_of(event["type"])())
    except (json_format.ParseError, InvalidArgument) as error:
        return [f"{path.name} cannot be read any more: {error}"]
    return []


def _message_name(event_type: str) -> str:
    _, _, resource, _, what = event_type.split(".")
    return "".join(word.title() for word in f"{resource}_{what}".split("_"))


def untested_reasons(root: Path) -> list[str]:
    """Every reason of an error is raised by a test."""
    tests = "\n".join(path.read_text() for path in _test_files(root))
    found = {}
    for path in python_files(root, "services", "libs"):
        for reason in _REASON.findall(path.read_text()):
            found.setdefault(reason, path.relative_to(root))
    return [f"{reason} of {path} is raised by no test" for reason, path in sorted(found.items()) if reason not in tests]


def _test_files(root: Path) -> Iterator[Path]:
    for folder in ("services", "libs", "deploy", "tests", "examples"):
        yield from (
            path
            for path in sorted((root / folder).rglob("*.py"))
            if "tests" in path.parts and path.name != "promises.py"
        )


def commands_that_do_not_exist(root: Path) -> list[str]:
    """Every `make` command of the documentation is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (root / "Makefile").read_text(), flags=re.MULTILINE))
    for line in re.findall(r"^([a-z][a-z -]*):", (root / "Makefile").read_text(), flags=re.MULTILINE):
        targets |= set(line.split())
    found = []
    for path in [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "ARCHITECTURE.md",
        *sorted((root / "docs").glob("*.md")),
    ]:
        for code in re.findall(r"`[^`\n]+`|^    .+$", path.read_text(), flags=re.MULTILINE) if path.exists() else ():
            found += [
                f"{path.name}: make {name} does not exist" for name in _MAKE_TARGET.findall(code) if name not in targets
            ]
    return found


def folders_of_a_machine(root: Path) -> list[str]:
    """No file names a machine's own folders."""
    found = []
    for suffix in ("*.py", "*.md", "*.yaml", "*.toml", "*.proto", "*.sql"):
        for path in sorted(root.rglob(suffix)):
            relative = path.relative_to(root)
            if relative.parts[0].startswith(".") or "promises" in path.name or "node_modules" in relative.parts:
                continue
            if re.search(r"(^|[\s\"'(=])/(work|root|Users/\w+|home/\w+)/", path.read_text()):
                found.append(f"{relative} names a folder of a machine")
    return found


def undocumented(root: Path) -> list[str]:
    """Every setting, every event and every metric is in the documentation."""
    metrics = (root / "docs" / "metrics.md").read_text() if (root / "docs" / "metrics.md").exists() else ""
    found = [
        f"{metric.name} is not in docs/metrics.md" for metric in metrics_in(root) if f"`{metric.name}`" not in metrics
    ]
    settings = (root / "docs" / "settings.md").read_text() if (root / "docs" / "settings.md").exists() else ""
    events = (root / "docs" / "events.md").read_text() if (root / "docs" / "events.md").exists() else ""
    for path in sorted((root / "services").glob("*/vesta_*/settings.py")):
        service = path.parts[-3]
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                name = f"VESTA_{service}_{node.target.id}".upper()
                if f"`{name}`" not in settings:
                    found.append(f"{name} is not in docs/settings.md")
    for path in sorted((root / "protos" / "topics").glob("*.yaml")):
        told = [event["type"] for event in yaml.safe_load(path.read_text())["events"]]
        found += [f"{event_type} is not in docs/events.md" for event_type in told if f"`{event_type}`" not in events]
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
