"""`vesta-admin` prepares empty engines, is idempotent, and reports what prevents it."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from vesta_admin.catalogue import topics
from vesta_admin.database import SERVICES
from vesta_admin.settings import Settings
from vesta_admin.setup import EngineError, migrate, set_up, set_up_database
from vesta_common.ids import new_id
from vesta_common.storage.postgres import Postgres, SchemaTooOldError
from vesta_local.engines.addresses import admin_settings
from vesta_local.engines.external_engines import plain
from vesta_local.platform import Platform

PACKAGE = Path(__file__).parents[1]


@pytest.fixture
def settings(engines: Platform, postgres_url: str) -> Iterator[Settings]:
    """Settings with a new database, a new bucket, and a separate topic prefix."""
    name, found = f"test_{new_id()}", admin_settings(engines.home)
    yield Settings(
        **{field: getattr(found, field) for field in Settings.model_fields}
        | {
            "postgres_url": urlsplit(postgres_url)._replace(path=f"/{name}").geturl(),
            "postgres_password": "",
            "s3_bucket": name.replace("_", "-"),
            "kafka_topic_prefix": f"{found.kafka_topic_prefix}{name}.",
            "wait_seconds": 0,
        }
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def vesta_admin(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with these settings."""
    environment = {f"VESTA_ADMIN_{name}".upper(): str(plain(value)) for name, value in settings}
    command = [sys.executable, "-m", "vesta_admin", *arguments]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
    )


def test_setup_creates_all_that_services_need_and_nothing_the_second_time(settings: Settings) -> None:
    first = vesta_admin(settings, "setup")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("created topic ") == len(topics())
    for created in ("database test_", "extension vector", "extension pg_trgm", "bucket test-", "triton/.repository"):
        assert created in first.stdout
    assert vesta_admin(settings, "setup").stdout == "nothing to do\n"


def test_a_service_that_only_checks_says_what_to_run_and_the_phases_apply_every_migration(settings: Settings) -> None:
    set_up_database(settings)
    annotation = Postgres(settings.postgres_url, "annotation")
    with pytest.raises(SchemaTooOldError, match="vesta-admin migrate pre"):
        annotation.check_migrations("vesta_annotation")
    pre = vesta_admin(settings, "migrate", "pre").stdout
    assert "_post.sql" not in pre
    assert all(f"applied {service}: vesta_{service}/0001_" in pre for service in SERVICES)
    annotation.check_migrations("vesta_annotation")
    post = migrate(settings, post=True)
    assert "serving: vesta_serving/0004_score_again_post.sql" in post
    assert all(name.endswith("_post.sql") for name in post)
    assert migrate(settings, post=True) == []


def test_check_names_each_dataset_whose_counts_differ_and_repairs_them(settings: Settings) -> None:
    set_up_database(settings)
    migrate(settings, post=True)
    assert vesta_admin(settings, "check").stdout == "all counts are correct\n"
    with Postgres(settings.postgres_url, "datasets").connect() as connection:
        connection.execute(
            "INSERT INTO item_counts (dataset, facets, scored_by, count) VALUES ('vans', 0, '', 2), ('cars', 0, '', 0)"
        )
    found = vesta_admin(settings, "check")
    assert (found.returncode, found.stdout) == (1, "vans: 2 items are counted wrongly\n")
    assert "vesta-admin check --repair" in found.stderr
    assert vesta_admin(settings, "check", "--repair").stdout == "repaired vans: 2 items are counted wrongly\n"
    assert vesta_admin(settings, "check").stdout == "all counts are correct\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"postgres_url": "postgresql://vesta@127.0.0.1:9/vesta"},
            "PostgreSQL does not respond.*VESTA_ADMIN_POSTGRES_URL",
        ),
        ({"s3_access_key": "stranger"}, "the object store denies access.*check the S3 keys"),
        ({"kafka_bootstrap": "127.0.0.1:9"}, "Kafka does not respond.*VESTA_ADMIN_KAFKA_BOOTSTRAP"),
        ({"kafka_bootstrap": ""}, "KAFKA_BOOTSTRAP"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named(settings: Settings, wrong: dict[str, str], words: str) -> None:
    with pytest.raises(EngineError, match=f"(?s){words}"):
        set_up(settings.model_copy(update=wrong))


def test_a_user_without_rights_is_told_what_the_administrator_is_to_run(settings: Settings, postgres_url: str) -> None:
    role = f"poor_{new_id()}".lower()
    poor = make_url(settings.postgres_url, role, "poor")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'poor'").format(sql.Identifier(role)))
        try:
            done = vesta_admin(settings.model_copy(update={"postgres_url": poor}), "setup")
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert done.returncode == 1
    assert "ask an administrator to run: CREATE DATABASE" in done.stderr


def make_url(url: str, user: str, password: str) -> str:
    """Returns the URL with another user."""
    return f"postgresql://{user}:{password}@{url.rpartition('@')[2]}"


def test_the_wheel_holds_the_catalogue_of_topics(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "vesta_admin/topics/vesta.datasets.item.v1.yaml" in names
