"""Finds the metrics that code defines, by reading it: calls of prometheus_client's constructors with a name of ours."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = {"Counter", "Gauge", "Histogram", "Summary"}


@dataclass(frozen=True, order=True)
class Metric:
    """A metric; where its name is made of a service's word, that is written `<service>`."""

    name: str
    kind: str
    text: str


def metrics_in(root: Path) -> list[Metric]:
    """Every metric of the services and of what they share, by name."""
    paths = [*root.glob("services/*/vesta_*/**/*.py"), *root.glob("libs/common/vesta_common/**/*.py")]
    return sorted({metric for path in paths for metric in _metrics(ast.parse(path.read_text()))})


def _metrics(tree: ast.Module) -> Iterator[Metric]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
            name = _text(node.args[0])
            if name.startswith("vesta_"):
                yield Metric(name, node.func.id.lower(), _text(node.args[1]) if len(node.args) > 1 else "")


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "<service>"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
