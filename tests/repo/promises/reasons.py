"""Every reason of an error is raised by a test, and what the contracts say of errors is so."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from promises.sources import python_files, strings_named, test_files

_REASON = re.compile(r"[A-Z][A-Z0-9_]+")


def untested_reasons(root: Path) -> list[str]:
    """Every reason that the code gives, by keyword, by place or by a constant, is a word of a test."""
    tested = set(re.findall(r"\w+", "\n".join(path.read_text() for path in test_files(root))))
    given = _reasons(root)
    return [f"{reason} of {given[reason]} is raised by no test" for reason in sorted(given.keys() - tested)]


def reasons_that_nothing_gives(root: Path) -> list[str]:
    """Every reason that the comment of an RPC names among its errors is one that the code gives."""
    known = {*_reasons(root), *(code.name for code in grpc.StatusCode)}
    found = []
    for path in sorted((root / "protos" / "vesta").rglob("*_service.proto")):
        for errors, method in re.findall(r"Errors:((?:(?!Errors:).)*?)\n  rpc (\w+)", path.read_text(), re.DOTALL):
            named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", errors))
            found += [f"{path.name}: {method} names {reason}, which nothing gives" for reason in sorted(named - known)]
    return found


def _reasons(root: Path) -> dict[str, Path]:
    """The reasons that the code gives, with a file that gives them."""
    trees = {path: ast.parse(path.read_text()) for path in python_files(root, "services", "libs")}
    constants = {name: text for tree in trees.values() for name, text in strings_named(tree).items()}
    places = _places(trees.values())
    found: dict[str, Path] = {}
    for path, tree in trees.items():
        own = constants | strings_named(tree)
        for node in ast.walk(tree):
            for text in _given(node, places, own):
                if _REASON.fullmatch(text):
                    found.setdefault(text, path.relative_to(root))
    return found


def _places(trees: Iterable[ast.Module]) -> dict[str, set[int]]:
    """Where the functions and classes that take a `reason` by place take it, by their names."""
    found: dict[str, set[int]] = defaultdict(set)
    for tree in trees:
        for node in ast.walk(tree):
            names = _parameters(node)
            if "reason" in names and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[node.name].add(names.index("reason"))
    return found


def _parameters(node: ast.AST) -> list[str]:
    """What a function takes by place, or a class: by its `__init__`, or else by its annotated fields."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [argument.arg for argument in node.args.args]
        return names[1:] if names[:1] in (["self"], ["cls"]) else names
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return _parameters(part)
        return [
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]
    return []


def _given(node: ast.AST, places: dict[str, set[int]], constants: dict[str, str]) -> Iterator[str]:
    """The reasons that one piece of code gives."""
    values: list[ast.expr] = []
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        values += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        values += [node.args[place] for place in places.get(name, ()) if place < len(node.args)]
    if isinstance(node, ast.Assign) and any(
        isinstance(to, ast.Name) and to.id == "default_reason" for to in node.targets
    ):
        values.append(node.value)
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
