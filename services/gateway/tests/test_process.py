"""The process: its settings, its start, its metrics, its graceful end, and what it never loads."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import psycopg
import pytest
import vesta_gateway
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_contracts.gateway.v1 import ApiKeyServiceStub, GetIdentityRequest

KEY = "vesta_owner"


def environment(settings, **overrides):
    given = {**settings, "owner_key_sha256": hashlib.sha256(KEY.encode()).hexdigest(), **overrides}
    return {**os.environ, **{f"VESTA_GATEWAY_{name.upper()}": str(value) for name, value in given.items()}}


@contextmanager
def started_process(given):
    """A gateway process that has started, and what it said then."""
    started = subprocess.Popen([sys.executable, "-m", "vesta_gateway"], env=given, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in started.stderr:
        lines.append(line)
        if "service_started" in line:
            break
    try:
        started.addresses = json.loads(lines[-1])
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        started.stderr.close()


@pytest.fixture
def process(service_settings):
    with started_process(environment(service_settings("gateway"))) as started:
        yield started


def test_the_process_serves_reports_metrics_and_stops_on_sigterm(process):
    addresses = process.addresses
    headers = {"x-api-key": KEY}
    assert httpx.get(f"http://{addresses['rest']}/v1/identity", headers=headers).json()["platformOwner"]
    metrics = httpx.get(f"http://{addresses['metrics']}/metrics").text
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(10)

    assert status == 0
    assert time.monotonic() - start < 10
    assert re.search(
        r'vesta_gateway_rpc_seconds_count\{code="OK",method="/vesta.gateway.v1.ApiKeyService/GetIdentity"\} 1', metrics
    )
    assert "vesta_gateway_watchers_active 0.0" in metrics
    rest = process.stderr.read()
    request = next(json.loads(line) for line in rest.splitlines() if '"request"' in line)
    assert request["target"] == "/vesta.gateway.v1.ApiKeyService/GetIdentity"
    assert len(request["trace_id"]) == 32
    assert KEY not in rest


def test_a_draining_gateway_reports_it_and_serves_both_protocols_until_the_second_signal(service_settings):
    with started_process(environment(service_settings("gateway"), drain_ms=60_000)) as process:
        addresses, headers = process.addresses, {"x-api-key": KEY}
        with httpx.Client(base_url=f"http://{addresses['rest']}", headers=headers) as client:
            assert client.get("/healthz/ready").status_code == 200
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while (ready := client.get("/healthz/ready")).status_code == 200:
                assert time.monotonic() < deadline
            assert (ready.status_code, ready.headers["connection"]) == (503, "close")
            answer = client.get("/v1/identity")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            identity = ApiKeyServiceStub(channel).GetIdentity(GetIdentityRequest(), metadata=[("x-api-key", KEY)])
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert identity.platform_owner
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_watchers_do_not_delay_the_shutdown(process):
    url = f"http://{process.addresses['rest']}"
    ended = threading.Event()

    def watch():
        with httpx.stream("GET", f"{url}/v1/projects/a/events:watch", headers={"x-api-key": KEY}, timeout=30) as answer:
            began.set()
            list(answer.iter_lines())
        ended.set()

    began = threading.Event()
    watching = threading.Thread(target=watch)
    watching.start()
    assert began.wait(10)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0
    assert time.monotonic() - start < 4
    assert ended.wait(5)
    watching.join()


def test_an_invalid_setting_is_named_at_the_start(service_settings):
    wrong = environment(service_settings("gateway"), owner_key_sha256="short")
    ended = subprocess.run(
        [sys.executable, "-m", "vesta_gateway"], env=wrong, capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 2
    assert "VESTA_GATEWAY_OWNER_KEY_SHA256" in ended.stderr


def test_post_migrations_wait_until_the_setting_allows_them(service_settings, tmp_path):
    # A copy of the package as a later version would be: with a migration that the version before cannot live with.
    package = Path(vesta_gateway.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    later = tmp_path / package.name / "migrations" / "9999_drop_prefix_post.sql"
    later.write_text("ALTER TABLE api_key DROP prefix")
    settings = service_settings("gateway")

    def columns(*, post_migrations):
        given = environment(settings, post_migrations=post_migrations) | {"PYTHONPATH": str(tmp_path)}
        with started_process(given), psycopg.connect(settings["postgres_url"]) as connection:
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = 'api_key'",
                (settings["postgres_schema"],),
            )
            return {row[0] for row in found}

    assert "prefix" in columns(post_migrations="false")
    assert "prefix" not in columns(post_migrations="true")


def test_no_heavy_library_is_loaded():
    code = "import sys, vesta_gateway.app; print([n for n in ('torch', 'PIL', 'numpy', 'boto3', 'pyarrow') if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert ended.stdout.strip() == "[]"


def test_every_setting_has_a_description():
    from vesta_common.settings import describe
    from vesta_gateway.settings import Settings

    assert all(description for _, _, _, description in describe(Settings))
