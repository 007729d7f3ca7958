"""What speaks gRPC alone needs none of the extras, so that a small service stays small."""

import subprocess
import sys

EXTRAS = ("psycopg", "psycopg_pool", "aiosql", "kafka", "boto3", "botocore", "PIL", "numpy", "pyarrow")
MODULES = (
    *("clock", "errors", "ids", "log", "messages", "metrics", "settings", "trace"),
    *("resources.etags", "resources.filters", "resources.masks", "resources.names", "resources.page_keys"),
    *("resources.idempotency", "resources.pages", "runtime.service"),
    *("rpc.client", "rpc.interceptors", "rpc.server", "rpc.validation"),
)
IMPORT_WITHOUT = """
import importlib
import sys

for name in {extras!r}:
    sys.modules[name] = None  # as if it were not installed
for name in {modules!r}:
    importlib.import_module("vesta_common." + name)
from vesta_common.errors import Unavailable, is_transient

assert is_transient(Unavailable("x")) and not is_transient(ValueError("x"))
"""


def test_the_grpc_half_runs_without_any_extra() -> None:
    script = IMPORT_WITHOUT.format(extras=EXTRAS, modules=MODULES)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
