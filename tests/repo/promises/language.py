"""The code speaks the field's language: names, comments and docstrings use no retired term."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from promises.sources import python_files

RETIRED = {
    "bear": "have, contain",
    "bears": "has, contains",
    "bearing": "with",
    "borne": "used, contained",
    "obey": "execute",
    "obeys": "executes",
    "told": "published, reported or returned",
    "amending": "updating",
    "penalties": "backoff",
    "resealing": "key rotation",
    "telling": "publishing",
}
"""Each retired term with what to write instead (docs/glossary.md)."""
_WORD = re.compile(r"[A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def retired_terms(root: Path) -> list[str]:
    """Names, comments and docstrings of the packages use the terms of the glossary."""
    found = []
    for path in python_files(root, "services", "libs", "deploy"):
        if "tests" not in path.parts and "vesta_contracts" not in path.parts:
            found += [
                f"{path.relative_to(root)}:{line} says {term!r}; write {RETIRED[term]}" for line, term in _used(path)
            ]
    return found


def _used(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield from ((token.start[0], term) for term in _terms(_HUMP.sub("_", token.string).replace("_", " ")))
        elif token.type == tokenize.COMMENT:
            yield from ((token.start[0], term) for term in _terms(token.string))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from ((node.lineno, term) for term in _terms(node.value.value))


def _terms(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text) if word.lower() in RETIRED]
