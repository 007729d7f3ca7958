"""Code, contracts and documents use the terms of the glossary: no retired term occurs in them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from promises.sources import python_files

RETIRED = {
    "amend": "update",
    "amended": "updated",
    "amending": "updating",
    "anew": "again",
    "bear": "have, contain",
    "bearing": "with",
    "bears": "has, contains",
    "borne": "used, contained",
    "cutting": "splitting, truncating",
    "fares": "performs",
    "forgets": "deletes",
    "forgetting": "retention",
    "foreseen": "expected",
    "graft": "append",
    "hinder": "prevent",
    "hinders": "prevents",
    "hindrance": "problem",
    "journal": "log, store",
    "lesson": "inputs",
    "lessons": "inputs",
    "mend": "fix, repair",
    "mended": "fixed, repaired",
    "mends": "fixes, repairs",
    "obey": "execute",
    "obeys": "executes",
    "penalties": "backoff",
    "refusal": "rejection, error",
    "refusals": "rejections",
    "reseal": "encrypt again",
    "resealing": "key rotation",
    "spoils": "invalidates",
    "taught": "trained",
    "telling": "publishing",
    "tells": "publishes, reports or returns",
    "told": "published, reported or returned",
    "wavers": "is uncertain",
    "whoever": "the client, user or service that",
}
"""Each retired term with what to write instead (docs/glossary.md)."""
_WORD = re.compile(r"[A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "services/*/README.md",
    "libs/*/README.md",
)
_TEXTS = (
    *_DOCUMENTS,
    "deploy/**/README.md",
    "protos/vesta/**/*.proto",
    "protos/topics/*.yaml",
    "services/*/vesta_*/queries.sql",
)


def retired_terms(root: Path) -> list[str]:
    """Names, comments, docstrings and messages of the packages, contracts, statements and documents use the terms of the glossary."""
    found = []
    for path in python_files(root, "services", "libs", "deploy"):
        if "tests" not in path.parts and "vesta_contracts" not in path.parts:
            found += _complaints(root, path, _used(path))
    for pattern in _TEXTS:
        for path in sorted(root.glob(pattern)):
            lines = enumerate(path.read_text().splitlines(), 1)
            found += _complaints(root, path, ((at, term) for at, line in lines for term in _terms(line)))
    return found


def _complaints(root: Path, path: Path, used: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{path.relative_to(root)}:{line} says {term!r}; write {RETIRED[term]}" for line, term in used]


def _used(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield from ((token.start[0], term) for term in _terms(_HUMP.sub("_", token.string).replace("_", " ")))
        elif token.type == tokenize.COMMENT:
            yield from ((token.start[0], term) for term in _terms(token.string))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, term) for term in _terms(node.value))


def _terms(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text) if word.lower() in RETIRED]
