"""Every reason of an error is raised by a test."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from promises.sources import python_files, strings_named, test_files

_REASON = re.compile(r"[A-Z][A-Z0-9_]+")


def untested_reasons(root: Path) -> list[str]:
    """Every reason that the code gives, by keyword, by place or by a constant, is a word of a test."""
    trees = {path: ast.parse(path.read_text()) for path in python_files(root, "services", "libs")}
    constants = {name: text for tree in trees.values() for name, text in strings_named(tree).items()}
    places = _places(trees.values())
    tested = set(re.findall(r"\w+", "\n".join(path.read_text() for path in test_files(root))))
    found: dict[str, Path] = {}
    for path, tree in trees.items():
        own = constants | strings_named(tree)
        for node in ast.walk(tree):
            for text in _given(node, places, own):
                if _REASON.fullmatch(text):
                    found.setdefault(text, path.relative_to(root))
    return [
        f"{reason} of {path} is raised by no test" for reason, path in sorted(found.items()) if reason not in tested
    ]


def _places(trees: Iterable[ast.Module]) -> dict[str, set[int]]:
    """Where the functions that take a `reason` by place take it, by their names."""
    found: dict[str, set[int]] = defaultdict(set)
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in node.args.args]
                names = names[1:] if names[:1] in (["self"], ["cls"]) else names
                if "reason" in names:
                    found[node.name].add(names.index("reason"))
    return found


def _given(node: ast.AST, places: dict[str, set[int]], constants: dict[str, str]) -> Iterator[str]:
    """The reasons that one piece of code gives."""
    values: list[ast.expr] = []
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        values += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        values += [node.args[place] for place in places.get(name, ()) if place < len(node.args)]
    if isinstance(node, ast.arguments):
        defaults = zip(reversed(node.args), reversed(node.defaults), strict=False)
        defaults = [*defaults, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        values += [value for argument, value in defaults if argument.arg == "reason" and value]
    for value in values:
        for part in ast.walk(value):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
            elif isinstance(part, ast.Name):
                yield constants.get(part.id, "")
