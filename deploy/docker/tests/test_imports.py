"""An image has the libraries that its programs import."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from vesta_images.catalogue import BY_NAME, ROOT, SERVICES
from vesta_local.setup.downloads import normalised, read_pins

FOLDERS = {
    "vesta_common": ROOT / "libs/common",
    "vesta_contracts": ROOT / "libs/contracts",
    "vesta_admin": ROOT / "deploy/admin",
    **{f"vesta_{name}": ROOT / "services" / name for name in SERVICES},
}
WITHOUT_TORCH = "training"  # the service: it starts what imports torch, in the image of the trainer


@pytest.mark.parametrize("name", [*SERVICES, "trainer", "admin"])
def test_an_image_has_the_libraries_that_its_modules_import(name: str) -> None:
    files = BY_NAME[name].all_requirements()
    pins = {pin.name for file in files for pin in read_pins(file.read_text().splitlines())}
    imported = _libraries(_programs(name))
    assert imported, "no import was found"
    missing = {library: where for library, where in imported.items() if not _distributions(library) & pins}
    assert missing == {}, "name them in the pyproject.toml of the service, and run `make lock`"


def test_a_library_that_an_image_lacks_is_found() -> None:
    assert "boto3" in _libraries(["vesta_common.media.large_annotations"])
    assert _libraries(["vesta_common.storage.objects"]).keys() >= {"boto3", "botocore"}
    assert "boto3" not in _libraries(["vesta_common.media.boxes"])


def _programs(name: str) -> list[str]:
    """Returns the modules that an image may start: all of its service, or the main module where others are for another image."""
    package = "vesta_training" if name == "trainer" else f"vesta_{name}"
    if name == WITHOUT_TORCH:
        return [f"{package}.__main__"]
    folder = FOLDERS[package]
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for path in (folder / package).rglob("*.py")
        if "migrations" not in path.parts
    ]


def _libraries(programs: list[str]) -> dict[str, str]:
    """Returns the top-level modules of other projects that are imported when these of our modules are, each with one importing file."""
    found: dict[str, str] = {}
    waiting, seen = [*programs], set()
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if path is None or path in seen:
            continue
        seen.add(path)
        for imported in _imports(path):
            root = imported.partition(".")[0]
            if root in FOLDERS:
                parts = imported.split(".")
                waiting += [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
            elif root not in sys.stdlib_module_names:
                found.setdefault(root, str(path.relative_to(ROOT)))
    return found


def _file(module: str) -> Path | None:
    """Returns the file of one of our modules; None for a name in a module."""
    path = FOLDERS[module.partition(".")[0]].joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    """Yields what a file imports when it is imported, with the names of `from` imports, which may be modules."""
    blocks: list[list[ast.stmt]] = [ast.parse(path.read_text()).body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{name.name}" for name in node.names)
            elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
                blocks += [node.body, node.orelse]


@cache
def _providers() -> dict[str, set[str]]:
    return {module: {normalised(name) for name in names} for module, names in packages_distributions().items()}


def _distributions(library: str) -> set[str]:
    """Returns the distributions that provide a top-level module; `google` is of several."""
    return _providers().get(library, {library})
