"""The tables that grow with items, tasks, predictions, frames and files: no statement for a small project scans those of a large one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from vesta_annotation.store import Store as AnnotationStore
from vesta_common.clock import ManualClock
from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.serving.v1 import Deployment
from vesta_local.query_plans import excesses, named_statements, set_row_count, statement_of_call
from vesta_local.testing import new_schema
from vesta_pipelining.store import Store as PipeliningStore
from vesta_serving.store.logged_predictions import LoggedPredictions
from vesta_serving.store.rows import DeploymentRow

pytestmark = pytest.mark.own_engines

LARGE_COUNT, SMALL_COUNT = 20_000, 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = Where("TRUE", {})


@dataclass(frozen=True)
class Service:
    """The tables and statements of a service.

    Attributes:
        fill: statements that insert the rows of `%(owner)s`, `%(count)s` of them; by large table, or by `""` for other tables.
        values: of the parameters, as of the small project.
        distinct: values that a statement needs instead.
        platform_wide: statements that concern all projects, each with the reason.
    """

    name: str
    fill: Mapping[str, str]
    values: Mapping[str, Any]
    distinct: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    platform_wide: Mapping[str, str] = field(default_factory=dict)


_TASK = "%(owner)s || '/tasks/' || lpad(n::text, 5, '0')"
ANNOTATION = Service(
    "annotation",
    {
        "": """
            INSERT INTO campaigns (name, parent, state, body, create_time, update_time)
            VALUES (%(owner)s, 'p', 'ACTIVE', '', %(now)s, %(now)s)""",
        "tasks": f"""
            INSERT INTO tasks (name, campaign, item, state, priority, control, blind, body, create_time, update_time, annotators)
            SELECT {_TASK}, %(owner)s, %(owner)s || n, (ARRAY['OPEN', 'IN_REVIEW', 'ACCEPTED', 'ACCEPTED'])[n %% 4 + 1], 0.5,
                n %% 7 = 0, n %% 5 = 0, '', %(now)s, %(now)s, ARRAY['members/other']
            FROM generate_series(1, %(count)s) AS n""",
        "submissions": f"""
            INSERT INTO submissions (name, task, round, annotator, body)
            SELECT {_TASK} || '/submissions/1', {_TASK}, 1, 'members/other', '' FROM generate_series(1, %(count)s) AS n""",
        "reviews": f"""
            INSERT INTO reviews (name, task, body) SELECT {_TASK} || '/reviews/1', {_TASK}, '' FROM generate_series(1, %(count)s) AS n""",
    },
    {
        "name": "small/tasks/00003", "names": ["small/tasks/00003"], "parent": "p", "state": "ACTIVE", "body": b"", "now": NOW,
        "after": "", "limit": 10, "campaign": "small", "campaigns": ["small"], "item": "small3", "items": ["small3"], "priority": 0.5,
        "known": [b"key"],
        "control": False, "blind": False, "caller": "members/me", "annotators_per_task": 2, "expire_time": NOW, "own_too": True,
        "annotator": "members/me", "accepted_key": b"", "task": "small/tasks/00003", "round": 1, "answer_key": b"", "time_spent": None,
        "tasks_max": 300,
    },
    distinct={
        "insert_tasks": {"name": "small/tasks/new", "item": "new"},
        "insert_submission": {"name": "new"},
        "insert_review": {"name": "new"},
        "delete_campaign": {"name": "small"},
    },
    platform_wide={"count_undecided_tasks": "a metric of the platform, from the partial index of undecided tasks"},
)  # fmt: skip
SERVING = Service(
    "serving",
    {
        "": """
            INSERT INTO deployments (name, parent, body, wanted, state, create_time, update_time)
            VALUES (%(owner)s, 'p', '', 'v', 'READY', %(now)s, %(now)s)""",
        "predictions": """
            INSERT INTO predictions (name, deployment, item, sha256, model_version, label, score, uncertain, scores, create_time)
            SELECT %(owner)s || '/predictions/' || lpad(n::text, 5, '0'), %(owner)s, 'i' || n, '', 'v', 'van', 0.5, false, '', %(now)s
            FROM generate_series(1, %(count)s) AS n""",
        "arrivals": """
            INSERT INTO arrivals (deployment, item, object_key, sha256) SELECT %(owner)s, 'i' || n, '', ''
            FROM generate_series(1, %(count)s) AS n""",
    },
    {
        "name": "small", "parent": "p", "body": b"", "wanted": "v", "now": NOW, "after": "", "limit": 10, "dataset": "d",
        "state": "READY", "error": "", "deployment": "small", "deployments": ["small"], "datasets": ["d"], "version": "v2",
        "triton_name": "t", "head": None,
        "model_version": "v", "generation": 1, "embeds": True, "page_token": "", "scored_count": 1, "done": True,
        "item_count": 1, "item": "new", "object_key": "", "sha256": "", "traceparent": "", "items": ["i1", "i2"], "retry_time": NOW,
        "before": datetime(2025, 1, 1, tzinfo=UTC),
    },
    distinct={
        "insert_deployment": {"name": "new"},
        "find_prediction": {"name": "small/predictions/00003"},
    },
    platform_wide={"count_arrivals": "a metric of the platform, of at most 100,000 rows"},
)  # fmt: skip
PIPELINING = Service(
    "pipelining",
    {
        "": """
            INSERT INTO pipelines (name, parent, body, create_time, update_time) VALUES (%(owner)s || 'p', 'p', '', %(now)s, %(now)s);""",
        "streams": """
            INSERT INTO streams (name, pipeline, display_name, window_start, create_time, update_time)
            VALUES (%(owner)s, %(owner)s || 'p', '', %(now)s, %(now)s, %(now)s)""",
        "observations": """
            INSERT INTO observations (name, stream, label, uncertain, frame_time, body, create_time)
            SELECT %(owner)s || '/observations/' || lpad(n::text, 5, '0'), %(owner)s, 'van', false, %(now)s, '', %(now)s
            FROM generate_series(1, %(count)s) AS n""",
        "uncertain_frames": """
            INSERT INTO uncertain_frames (observation, stream, source, event_id, data, content_type, frame_time, create_time)
            SELECT %(owner)s || '/observations/' || lpad(n::text, 5, '0'), %(owner)s, '', '', '', '', %(now)s, %(now)s
            FROM generate_series(1, %(count)s) AS n""",
    },
    {
        "name": "small", "parent": "p", "body": b"", "now": NOW, "after": "", "limit": 10, "pipeline": "smallp", "display_name": "",
        "paused": False, "uncertain_per_minute_max": 1, "observed": 1, "dropped": 0, "rejected": 0, "lag_seconds": 0.1,
        "last_frame_time": NOW, "window_start": NOW, "window_count": 1, "stream": "small", "label": "van", "labels": ["van"],
        "uncertain": False, "frame_time": NOW, "observation": "small/observations/00003", "source": "", "event_id": "", "data": b"",
        "content_type": "", "item": "i", "before": datetime(2025, 1, 1, tzinfo=UTC),
    },
    distinct={
        "insert_pipeline": {"name": "new"},
        "insert_stream": {"name": "new"},
        "insert_observation": {"name": "new"},
        "insert_uncertain_frame": {"observation": "small/observations/new"},
        "set_item": {"name": "small/observations/00003"},
        "find_observation": {"name": "small/observations/00003"},
    },
    platform_wide={"insert_uncertain_frame": "its observation is inserted in the same transaction"},
)  # fmt: skip
CONNECTION = Service(
    "connection",
    {
        "": """
            INSERT INTO sources (name, parent, body, create_time, update_time) VALUES (%(owner)s, 'p', '', %(now)s, %(now)s)""",
        "source_files": """
            INSERT INTO source_files (source, file_name, fingerprint, sync) SELECT %(owner)s, n || '.jpg', '', 's'
            FROM generate_series(1, %(count)s) AS n""",
        "syncs": """
            INSERT INTO syncs (name, source, state, create_time) SELECT %(owner)s || '/syncs/' || n, %(owner)s, 'SUCCEEDED', %(now)s
            FROM generate_series(1, %(count)s) AS n""",
    },
    {
        "name": "small", "parent": "p", "body": b"", "secret": "", "secret_key_id": "", "secret_token": "", "now": NOW, "after": "",
        "limit": 10, "source": "small", "before_time": NOW, "before_name": "", "found_count": 1, "unchanged_count": 1, "listed": True,
        "added_count": 1, "duplicate_count": 0, "rejected_count": 0, "rejections": "[]", "state": "SUCCEEDED", "error": "",
        "file_name": "1.jpg", "fingerprint": "", "sync": "s", "item": "i",
    },
    distinct={"insert_source": {"name": "new"}, "insert_sync": {"name": "new"}},
)  # fmt: skip
SERVICES = {service.name: service for service in (ANNOTATION, SERVING, PIPELINING, CONNECTION)}


@pytest.fixture(scope="module")
def filled(postgres_url: str) -> Iterator[Callable[[Service], Connection]]:
    """Returns a function that creates the tables of a service, with the rows of a small owner beside those of a large one."""
    with ExitStack() as stack:

        @cache
        def fill(name: str) -> Connection:
            schema = stack.enter_context(new_schema(postgres_url))
            postgres = Postgres(postgres_url, schema)
            postgres.migrate(f"vesta_{name}")
            connection = stack.enter_context(postgres.connect())
            for owner, count in (("large", LARGE_COUNT), ("small", SMALL_COUNT)):
                for statement in SERVICES[name].fill.values():
                    connection.execute(statement.encode(), {"owner": owner, "count": count, "now": NOW})
            connection.commit()
            set_row_count(connection, [table for table in SERVICES[name].fill if table])
            return connection

        yield lambda service: fill(service.name)


@pytest.mark.parametrize("name", SERVICES)
def test_no_statement_scans_the_rows_of_another_project(filled: Callable[[Service], Connection], name: str) -> None:
    service = SERVICES[name]
    statements = named_statements(load_queries(f"vesta_{name}"))
    for platform_wide in service.platform_wide:
        del statements[platform_wide]
    assert excesses_of(service, filled(service), statements) == []


def excesses_of(service: Service, connection: Connection, statements: Mapping[str, str]) -> list[str]:
    return [
        excess
        for name, statement in statements.items()
        for excess in excesses(
            connection, {name: statement}, {**service.values, **service.distinct.get(name, {})}, service.fill
        )
    ]


def test_no_list_scans_the_rows_of_another_project(filled: Callable[[Service], Connection], postgres_url: str) -> None:
    postgres, clock = Postgres(postgres_url, "unused"), ManualClock()
    deployment = DeploymentRow("small", Deployment(), "v", "v", "", "READY", "", 1, NOW, NOW, NOW)
    tasks, logged, observed = (
        AnnotationStore(postgres, clock, None),  # type: ignore[arg-type]  # a list reads no large annotations
        LoggedPredictions(postgres, clock),
        PipeliningStore(postgres, clock),
    )
    lists: Mapping[str, Callable[[Any], object]] = {
        "annotation": lambda connection: tasks.list_tasks(connection, "small", EVERYTHING, "", 50),
        "serving": lambda connection: logged.list_page(connection, deployment, EVERYTHING, "", 50),
        "pipelining": lambda connection: observed.list_observations(connection, "small", EVERYTHING, "", 50),
    }
    for name, call in lists.items():
        statement, values = statement_of_call(call)
        assert excesses(filled(SERVICES[name]), {name: statement}, values, SERVICES[name].fill) == []


def test_a_statement_that_scans_the_rows_of_another_project_is_found(filled: Callable[[Service], Connection]) -> None:
    broken = "SELECT count(*) FROM source_files WHERE source LIKE %(source)s || '%%'"
    assert excesses_of(CONNECTION, filled(CONNECTION), {"broken": broken})
