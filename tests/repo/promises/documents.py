"""The documents tell of the repository what is true, and of no machine anything."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from generate import pages
from metrics_in import metrics_in
from vesta.cli.main import cli

_MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
_VESTA_COMMAND = re.compile(r"^(?:\.venv/bin/)?vesta ((?:[a-z-]+ ?)+)")
_CODE = re.compile(r"`[^`\n]+`|^    .+$", re.MULTILINE)
_FOLDER = re.compile(r"(^|[\s\"'(=:])/(work|root|Users/\w+|home/\w+)/", re.MULTILINE)
_TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".proto", ".sql", ".json", ".sh", ".txt", ".lock", ""}
_NOT_OURS = {"node_modules", "__pycache__", "promises"}


def commands_that_do_not_exist(root: Path) -> list[str]:
    """Every `make` command of a document is a target of the Makefile, and every `vesta` command one of the command line."""
    targets = set()
    for line in re.findall(r"^([a-z][a-z -]*):", (root / "Makefile").read_text(), flags=re.MULTILINE):
        targets |= set(line.split())
    found = []
    for path in _documents(root):
        for code in _CODE.findall(path.read_text()):
            words = code.strip("` ")
            found += [
                f"{path.relative_to(root)}: make {name} does not exist"
                for name in _MAKE_TARGET.findall(words)
                if name not in targets
            ]
            if (command := _VESTA_COMMAND.match(words)) and not _is_command(command[1].split()):
                found.append(f"{path.relative_to(root)}: vesta {command[1].strip()} does not exist")
    return found


def _is_command(words: list[str]) -> bool:
    """True where the words name a command, whatever follows them."""
    here: click.Command = cli
    for word in words:
        if not isinstance(here, click.Group):
            return True
        if word not in here.commands:
            return False
        here = here.commands[word]
    return not isinstance(here, click.Group) or here is not cli


def _documents(root: Path) -> Iterator[Path]:
    yield from (path for path in sorted(root.glob("*.md")) if path.name != "CHANGELOG.md")
    for folder in ("docs", "libs", "services", "deploy", "examples", "benchmarks"):
        yield from sorted((root / folder).rglob("*.md"))


def folders_of_a_machine(root: Path) -> list[str]:
    """No file names a machine's own folders."""
    return [
        f"{path.relative_to(root)} names a folder of a machine"
        for path in _texts(root)
        if _FOLDER.search(path.read_text())
    ]


def _texts(root: Path) -> Iterator[Path]:
    """The files that are ours and text; these promises name what they look for."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name not in _NOT_OURS and (name[0] != "." or name == ".ci"))
        for name in sorted(names):
            if Path(name).suffix in _TEXT_SUFFIXES and name[0] != "." and name != "test_promises.py":
                yield Path(folder) / name


def undocumented_metrics(root: Path) -> list[str]:
    """Every metric is in docs/metrics.md."""
    told = _text(root / "docs" / "metrics.md")
    return [f"{metric.name} is not in docs/metrics.md" for metric in metrics_in(root) if f"`{metric.name}`" not in told]


def undocumented_settings(root: Path) -> list[str]:
    """Every setting is in docs/settings.md."""
    told = _text(root / "docs" / "settings.md")
    found = []
    for path in sorted((root / "services").glob("*/vesta_*/settings.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                name = f"VESTA_{path.parts[-3]}_{node.target.id}".upper()
                if f"`{name}`" not in told:
                    found.append(f"{name} is not in docs/settings.md")
    return found


def undocumented_events(root: Path) -> list[str]:
    """Every event is in docs/events.md."""
    told = _text(root / "docs" / "events.md")
    return [
        f"{event['type']} is not in docs/events.md"
        for path in sorted((root / "protos" / "topics").glob("*.yaml"))
        for event in yaml.safe_load(path.read_text())["events"]
        if f"`{event['type']}`" not in told
    ]


def outdated_documents(root: Path) -> list[str]:
    """What docs/generate.py writes is as it would write it."""
    return [f"docs/{name} is not current" for name, text in pages(root).items() if _text(root / "docs" / name) != text]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
