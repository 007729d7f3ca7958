"""Where our own sources lie, and what they import."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def services(root: Path) -> list[str]:
    """The services' words: the folders below services/ that hold a package named after them."""
    return sorted(path.parent.name for path in (root / "services").glob("*/vesta_*") if path.is_dir())


def packages(root: Path) -> list[str]:
    """The services' packages, such as vesta_annotation."""
    return [f"vesta_{service}" for service in services(root)]


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """Our own modules below these folders: no tests, nothing generated."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if "tests" not in path.parts and "vesta_contracts" not in path.parts:
                yield path


def test_files(root: Path) -> Iterator[Path]:
    """The modules that hold tests and what tests share, but for these promises."""
    for folder in ("services", "libs", "deploy", "tests", "examples", "benchmarks"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).parts
            is_test = "tests" in parts or path.name == "conftest.py"
            if is_test and "promises" not in parts and path.name != "test_promises.py":
                yield path
    yield from sorted(root.glob("conftest.py"))


def imports(path: Path) -> tuple[str, ...]:
    """The modules that a file imports and the names it takes from them, dotted: `unittest.mock`, `os.environ`."""
    return _imports_of(path.read_text())


@cache  # for several promises
def _imports_of(code: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def strings_named(tree: ast.Module) -> dict[str, str]:
    """A module's constants that are text, by name."""
    found = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[target.id] = value.value
    return found
