"""The repository keeps its promises, and each check rejects a deliberately broken sample."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from promises.code import (
    imported_tests,
    modules_that_hide_one_another,
    modules_without_a_first_line,
    patched_tests,
    readers_of_the_environment,
    rules_that_reach_outside,
    services_that_import_services,
    sql_outside_stores,
    task_types_outside_their_modules,
)
from promises.documents import (
    commands_that_do_not_exist,
    folders_of_a_machine,
    outdated_documents,
    undocumented_events,
    undocumented_metrics,
    undocumented_settings,
)
from promises.generated import outdated_contracts
from promises.language import retired_terms
from promises.loading import LEARNING, heavy_modules
from promises.reasons import reasons_that_nothing_gives, untested_reasons
from promises.sources import services
from promises.topics import events_of_no_topic, incomplete_topics, unreadable_examples, untrue_consumers, untrue_sizes

ROOT = Path(__file__).resolve().parents[2]
Promise = Callable[[Path], list[str]]

PROMISES: list[Promise] = [
    services_that_import_services,
    rules_that_reach_outside,
    sql_outside_stores,
    task_types_outside_their_modules,
    readers_of_the_environment,
    modules_without_a_first_line,
    retired_terms,
    patched_tests,
    imported_tests,
    modules_that_hide_one_another,
    incomplete_topics,
    unreadable_examples,
    events_of_no_topic,
    untrue_consumers,
    untrue_sizes,
    untested_reasons,
    reasons_that_nothing_gives,
    commands_that_do_not_exist,
    folders_of_a_machine,
    undocumented_metrics,
    undocumented_settings,
    undocumented_events,
    outdated_documents,
    outdated_contracts,
]

TOPIC = "vesta.annotation.task.v1"
ACCEPTED = f"{TOPIC}.accepted"
RULE = "services/annotation/vesta_annotation/rule.py"


def a_topic(**changes: object) -> dict[str, str]:
    """The file of a topic without a flaw but for the changes; None leaves an entry out. Its owner is a service that there is."""
    topic = {
        "topic": TOPIC,
        "owner": "annotation",
        "key": "the Task's name",
        "description": "What becomes of Tasks.",
        "events": [{"type": ACCEPTED, "message": "TaskAccepted", "description": "Decided.", "example": "example.json"}],
        "consumers": [{"service": "annotation", "group": "annotation.answers", "purpose": "counts"}],
        "partitions": 6,
        "retention": 30,
        "size_max_bytes": 65_536,
        "cleanup": "delete",
        "replicas": 3,
        "in_sync_replicas_min": 2,
    }
    kept = {key: value for key, value in (topic | changes).items() if value is not None}
    return {
        f"protos/topics/{TOPIC}.yaml": yaml.safe_dump(kept),
        "protos/topics/example.json": "{}",
        "services/annotation/vesta_annotation/__init__.py": '"""It."""\n',
    }


def a_consumer(event_type: str) -> dict[str, str]:
    """A service that handles one type of event in the group annotation.answers."""
    return {
        "services/annotation/vesta_annotation/app.py": 'Consumer(SERVICE, "answers", Reactions().handlers())\n',
        "services/annotation/vesta_annotation/event_handlers.py": f'def handlers():\n    return {{"{event_type}": handle}}\n',
    }


# Each promise with files that break it once.
BROKEN: list[tuple[Promise, dict[str, str]]] = [
    (
        services_that_import_services,
        {RULE: "from vesta_datasets.store import Store\n", "services/datasets/vesta_datasets/__init__.py": ""},
    ),
    (rules_that_reach_outside, {RULE: "import grpc\n"}),
    (rules_that_reach_outside, {RULE: "from vesta_common.storage.postgres import Connection\n"}),
    (rules_that_reach_outside, {RULE: "from kafka.errors import KafkaError\n"}),
    (rules_that_reach_outside, {RULE: "from vesta_contracts.datasets.v1 import ItemServiceStub\n"}),
    (rules_that_reach_outside, {"services/serving/vesta_serving/registry.py": "import json\n"}),
    (sql_outside_stores, {RULE: "from vesta_annotation.store import queries\nqueries.find_task(None)\n"}),
    (sql_outside_stores, {RULE: 'FIND = "SELECT name FROM tasks"\n'}),
    (sql_outside_stores, {RULE: "def count(connection):\n    return connection.execute(FIND)\n"}),
    (
        sql_outside_stores,
        {RULE: 'from vesta_common.storage.postgres import load_queries\n\nA = load_queries("vesta_annotation")\n'},
    ),
    (task_types_outside_their_modules, {RULE: "def of(task): return task == TaskType.TASK_TYPE_MULTI_LABEL\n"}),
    (readers_of_the_environment, {RULE: 'import os\nA = os.environ["A"]\n'}),
    (readers_of_the_environment, {RULE: "from os import environ\n"}),
    (readers_of_the_environment, {RULE: 'import os as system\nA = system.getenv("A")\n'}),
    (modules_without_a_first_line, {RULE: "import os\n"}),
    (retired_terms, {RULE: '"""What was told."""\n'}),
    (retired_terms, {RULE: "# items that bear labels\n"}),
    (retired_terms, {RULE: "def told_run(): ...\n"}),
    (retired_terms, {RULE: 'raise ValueError(f"{1} is mended")\n'}),
    (retired_terms, {"protos/vesta/annotation/v1/task.proto": "// Whoever answers.\n"}),
    (retired_terms, {"services/annotation/vesta_annotation/queries.sql": "-- Tasks that bear labels.\n"}),
    (retired_terms, {"docs/loop.md": "Starts anew.\n"}),
    (patched_tests, {"tests/test_x.py": "from unittest.mock import patch\n"}),
    (patched_tests, {"tests/test_x.py": "from unittest import mock\n"}),
    (patched_tests, {"services/annotation/tests/conftest.py": "import unittest.mock\n"}),
    (imported_tests, {"services/annotation/tests/test_x.py": "from conftest import Service\n"}),
    (imported_tests, {"services/annotation/tests/test_x.py": "from test_y import an_answer\n"}),
    (
        modules_that_hide_one_another,
        {
            "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["benchmarks", "tests/cluster"]\n',
            "benchmarks/figures.py": "",
            "tests/cluster/figures.py": "",
        },
    ),
    *((incomplete_topics, a_topic(**{key: None})) for key in ("owner", "key", "description", "events", "consumers")),
    *(
        (incomplete_topics, a_topic(**{key: None}))
        for key in ("partitions", "retention", "size_max_bytes", "cleanup", "replicas", "in_sync_replicas_min")
    ),
    (incomplete_topics, a_topic(topic="vesta.annotation.tusk.v1")),
    (incomplete_topics, a_topic(owner="nobody")),
    (incomplete_topics, a_topic(consumers=[{"service": "nobody"}])),
    (unreadable_examples, a_topic(events=[{"type": ACCEPTED, "example": "lost.json"}])),
    (unreadable_examples, a_topic() | {"protos/topics/example.json": '{"unheard": 1}'}),
    (unreadable_examples, a_topic(events=[{"type": f"{TOPIC}.eaten", "example": "example.json"}])),
    (
        events_of_no_topic,
        a_topic() | {"protos/vesta/annotation/v1/events.proto": f"// Type {TOPIC}.eaten.\nmessage TaskEaten {{\n}}\n"},
    ),
    (untrue_consumers, a_topic()),
    (untrue_consumers, a_topic(consumers=None) | a_consumer(ACCEPTED)),
    (untrue_consumers, a_topic() | a_consumer(ACCEPTED) | {"services/gateway/vesta_gateway/__init__.py": ""}),
    (untrue_sizes, a_topic(size_max_bytes=1_048_576)),
    (untrue_sizes, a_topic(topic="vesta.pipelining.frame.v1")),
    (untested_reasons, {RULE: 'NotFound("x", reason="NEVER_RAISED")\n'}),
    (untested_reasons, {RULE: 'WHY = "NEVER_RAISED"\nNotFound("x", reason=WHY)\n'}),
    (untested_reasons, {RULE: 'def _refusal(what, reason):\n    ...\n_refusal("x", "NEVER_RAISED")\n'}),
    (untested_reasons, {RULE: 'class Refused:\n    reason: str\n    message: str\nRefused("NEVER_RAISED", "x")\n'}),
    (untested_reasons, {RULE: 'class Refused(Exception):\n    default_reason = "NEVER_RAISED"\n'}),
    (untested_reasons, {RULE: 'def fail(what, *, reason="NEVER_RAISED"):\n    ...\n'}),
    (
        untested_reasons,
        {RULE: 'NotFound("x", reason="NEVER")\n', "tests/test_x.py": 'WORD = "NEVER_RAISED"\n'},
    ),
    (
        reasons_that_nothing_gives,
        {
            "protos/vesta/a/v1/a_service.proto": "  // Does. Errors: NOT_FOUND; ABORTED NEVER_RAISED it never is.\n  rpc Do(X)\n"
        },
    ),
    (commands_that_do_not_exist, {"Makefile": "demo: setup\n", "README.md": "Run `make coffee`.\n"}),
    (
        commands_that_do_not_exist,
        {"Makefile": "demo: setup\n", "services/annotation/README.md": "\n    make coffee\n"},
    ),
    (commands_that_do_not_exist, {"Makefile": "", "libs/client/README.md": "\n    vesta brew projects/acme\n"}),
    (commands_that_do_not_exist, {"Makefile": "", "docs/x.md": "See `vesta loop brew`.\n"}),
    *(
        (folders_of_a_machine, {name: "see /root/notes\n"})
        for name in ("docs/x.md", "Makefile", "protos/topics/examples/x.json", ".ci/run")
    ),
    (undocumented_metrics, {RULE: 'Counter(f"vesta_{word}_things_total", "Things")\n'}),
    (
        undocumented_settings,
        {"services/annotation/vesta_annotation/settings.py": 'class S:\n    speed: int = Field(1, description="x")\n'},
    ),
    (undocumented_events, a_topic()),
    (outdated_documents, a_topic() | {"docs/events.md": "# Events\n"}),
    (outdated_contracts, {"protos/vesta/a/v1/x.proto": 'syntax = "proto3";\npackage vesta.a.v1;\nmessage X {}\n'}),
]


# These tell of every file that is not current.
WHOLE = [outdated_documents, outdated_contracts]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_repository_keeps_its_promise(promise: Promise) -> None:
    assert promise(ROOT) == []


@pytest.mark.parametrize(("promise", "files"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_sample_is_rejected(promise: Promise, files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)
    found = promise(tmp_path)
    assert len(found) == 1 or (found and promise in WHOLE)


@pytest.mark.parametrize("promise", [promise for promise in PROMISES if promise.__module__ == "promises.topics"])
def test_a_topic_without_a_flaw_is_accepted(promise: Promise, tmp_path: Path) -> None:
    write(tmp_path, a_topic() | a_consumer(ACCEPTED))
    assert promise(tmp_path) == []


def test_every_promise_has_a_broken_sample() -> None:
    assert {promise.__name__ for promise in PROMISES} - {promise.__name__ for promise, _ in BROKEN} == set()


def test_the_gateway_loads_no_learning_library() -> None:
    assert heavy_modules(ROOT, "vesta_gateway.__main__", LEARNING) == []


@pytest.mark.parametrize("service", sorted(set(services(ROOT)) - {"training"}))
def test_the_services_beside_training_load_no_torch(service: str) -> None:
    assert heavy_modules(ROOT, f"vesta_{service}.app", ("torch",)) == []


def test_a_module_that_loads_a_learning_library_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"careless.py": "import light\n", "light.py": "import PIL\n"})
    assert heavy_modules(tmp_path, "careless", LEARNING) == ["PIL"]


def write(folder: Path, files: dict[str, str]) -> None:
    """Puts a sample there."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
