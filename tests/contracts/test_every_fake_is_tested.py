"""Every method of every fake has a contract test, so that the suite stays complete."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fakes import FAKES

HERE = Path(__file__).parent
SERVICES = HERE.parents[1] / "services"
SAMPLE = """
class FakeModels(other.Base, ModelServiceServicer): ...
class Listing(v1.ModelServiceServicer[int] if x else object): ...
class Client: ...
"""


def fakes_in(source: str) -> set[str]:
    """Returns the names of the classes that implement a generated servicer class."""
    return {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and any("ServiceServicer" in ast.unparse(base) for base in node.bases)
    }


def overridden(kind: type) -> set[str]:
    """Returns the methods that a fake implements, such as `ItemService.GetItem`."""
    return {
        f"{base.__name__.removesuffix('Servicer')}.{name}"
        for base in kind.__mro__
        if base.__name__.endswith("ServiceServicer")
        for name, method in vars(base).items()
        if not name.startswith("_") and getattr(kind, name) is not method
    }


def covered() -> Iterator[tuple[str, str]]:
    """Yields each caller and method that a contract test runs for; the fixture `peer` checks that the test calls the method."""
    for path in HERE.glob("test_*.py"):
        if path != Path(__file__):
            for test in vars(_loaded(path)).values():
                for mark in getattr(test, "pytestmark", ()):
                    if mark.name == "parametrize" and mark.args[0] == "peer":
                        for parameter in mark.args[1]:
                            _, caller, methods = parameter.values[0]
                            yield from ((caller, method) for method in methods)


def _loaded(path: Path) -> ModuleType:
    """Loads a module by its path, because tests of a service may have the same name."""
    spec = importlib.util.spec_from_file_location(f"contracts_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def test_servicer_classes_are_found() -> None:
    assert fakes_in(SAMPLE) == {"FakeModels", "Listing"}


@pytest.mark.parametrize("service", sorted(path.name for path in SERVICES.iterdir()))
def test_every_fake_of_a_service_is_known(service: str) -> None:
    found = {name for path in (SERVICES / service / "tests").glob("*.py") for name in fakes_in(path.read_text())}
    assert found == ({kind.__name__ for kind in FAKES[service].kinds} if service in FAKES else set())


@pytest.mark.parametrize("caller", FAKES)
def test_every_method_of_a_fake_has_a_contract_test(caller: str) -> None:
    methods = {method for kind in FAKES[caller].kinds for method in overridden(kind)}
    assert methods
    assert methods == {method for one, method in covered() if one == caller}
