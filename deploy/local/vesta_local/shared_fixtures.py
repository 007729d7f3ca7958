"""A pytest plugin for session fixtures that take much processor time to start and to run, such as the platform.

It stops each after the last test that uses it. With several processes (pytest-xdist), one of them runs all tests of such a fixture; other
tests are distributed by file. The groups begin first, because they take longest: `--no-loadscope-reorder` keeps this order.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

# The files of each group, in the order in which the groups begin; a file belongs to the first group that matches.
_GROUPS: dict[str, tuple[str, ...]] = {
    "replicas": ("tests/journeys/test_two_replicas.py",),
    "platform": (
        *("tests/chaos/", "tests/contracts/", "tests/fuzz/", "tests/journeys/", "tests/security/"),
        "examples/turn_the_loop/tests/test_demo.py",
    ),
    "processes": (
        "services/training/tests/test_processes.py",
        "services/training/tests/test_detection_processes.py",
    ),
    "api_kubeconfig": ("tests/cluster/", "services/training/tests/test_kubernetes_executor.py"),
    "triton": ("services/serving/", "deploy/local/tests/test_inference.py"),
}
_FIXTURES = ("platform", "api_kubeconfig", "triton")
_RUNNING = pytest.StashKey[dict[str, Callable[[], None]]]()


def group_of(nodeid: str) -> str:
    """Returns the group of a test: a key of `_GROUPS`, or its file."""
    path = nodeid.partition("::")[0]
    return next((name for name, paths in _GROUPS.items() if path.startswith(paths)), path)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests by group.

    Raises:
        UsageError: a test uses a shared fixture outside its group.
    """
    for item in items:
        for name in _FIXTURES:
            if _uses(item, name) and group_of(item.nodeid) != name:
                raise pytest.UsageError(f"{item.nodeid} uses {name}: add its file to that group in {__file__}")
    items.sort(key=_order)


def _uses(item: pytest.Item | None, name: str) -> bool:
    return name in getattr(item, "fixturenames", ())


def _order(item: pytest.Item) -> tuple[int, bool]:
    """Sorts by group; within a group, tests without its fixture come last."""
    group = group_of(item.nodeid)
    return [*_GROUPS, group].index(group), not _uses(item, group)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distributes the tests by group for `--dist=loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # not installed with the platform

    class GroupScheduling(LoadFileScheduling):  # type: ignore[misc]  # it is untyped
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: Any) -> None:
    """Prepares `pytest_runtest_teardown`."""
    if fixturedef.argname in _FIXTURES:
        request.session.stash.setdefault(_RUNNING, {})[fixturedef.argname] = partial(fixturedef.finish, request)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stops a shared fixture after the last test that uses it."""
    running = item.session.stash.get(_RUNNING, {})
    for name in [name for name in running if not _uses(nextitem, name)]:
        running.pop(name)()
