"""Marks a test as a contract test: it runs against each fake with certain methods, and against the real service."""

from typing import Any

import pytest
from fakes import FAKES


def implements(kinds: tuple[type, ...], method: Any) -> bool:
    """Returns True if one of the fakes overrides the method of a generated servicer class."""
    return any(
        getattr(kind, method.__name__) is not method
        for kind in kinds
        if any(vars(base).get(method.__name__) is method for base in kind.__mro__)
    )


def contract(*methods: Any, of: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test for each service whose tests fake all these methods: with the fake, and with the real service as that service calls it.

    The test has the argument `peer`, and calls each of the methods.

    Args:
        methods: of generated servicer classes, such as `ItemServiceServicer.GetItem`.
        of: the callers that rely on what the test says; all if empty.
    """
    callers = [
        caller
        for caller, fakes in FAKES.items()
        if all(implements(fakes.kinds, method) for method in methods) and (not of or caller in of)
    ]
    names = frozenset(method.__qualname__.replace("Servicer.", ".") for method in methods)
    assert callers, f"no fake has {names}"
    return pytest.mark.parametrize(
        "peer",
        [pytest.param((kind, caller, names), id=f"{kind}-{caller}") for caller in callers for kind in ("fake", "real")],
        indirect=True,
    )
