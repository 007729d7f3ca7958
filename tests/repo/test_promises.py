"""The repository keeps its promises, and each check rejects a deliberately broken sample."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from promises import (
    commands_that_do_not_exist,
    folders_of_a_machine,
    incomplete_topics,
    modules_without_a_first_line,
    patched_tests,
    readers_of_the_environment,
    services_that_import_services,
    undocumented,
    untested_reasons,
)

ROOT = Path(__file__).resolve().parents[2]
Promise = Callable[[Path], list[str]]

# Each promise with files that break it.
BROKEN: list[tuple[Promise, dict[str, str]]] = [
    (services_that_import_services, {"services/a/vesta_annotation/x.py": '"""X."""\nimport vesta_datasets.store\n'}),
    (readers_of_the_environment, {"services/a/vesta_annotation/x.py": '"""X."""\nimport os\nA = os.environ["A"]\n'}),
    (modules_without_a_first_line, {"services/a/vesta_annotation/x.py": "import os\n"}),
    (patched_tests, {"tests/test_x.py": "from unittest.mock import patch\n"}),
    (incomplete_topics, {"protos/topics/vesta.a.b.v1.yaml": "topic: vesta.a.b.v1\nowner: nobody\n"}),
    (
        untested_reasons,
        {"services/a/vesta_annotation/x.py": 'NotFound("x", reason="NEVER_RAISED")\n', "tests/test_a.py": ""},
    ),
    (commands_that_do_not_exist, {"Makefile": "demo: setup\n", "README.md": "Run `make coffee`.\n"}),
    (folders_of_a_machine, {"docs/x.md": "see /root/notes\n"}),
    (
        undocumented,
        {"services/annotation/vesta_annotation/settings.py": 'class S:\n    speed: int = Field(1, description="x")\n'},
    ),
    (undocumented, {"services/annotation/vesta_annotation/x.py": 'Counter(f"vesta_{word}_things_total", "Things")\n'}),
]


@pytest.mark.parametrize("promise", [promise for promise, _ in BROKEN], ids=lambda promise: promise.__name__)
def test_the_repository_keeps_its_promise(promise: Promise) -> None:
    assert promise(ROOT) == []


@pytest.mark.parametrize(("promise", "files"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_sample_is_rejected(promise: Promise, files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert promise(tmp_path)


def test_the_gateway_loads_no_learning_library() -> None:
    program = "import sys, vesta_gateway.__main__; print([n for n in ('torch', 'sklearn', 'onnxruntime', 'PIL') if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_services_beside_training_load_no_torch() -> None:
    services = ("connection", "datasets", "annotation", "serving", "pipelining", "conductor")
    program = f"import sys; [__import__(f'vesta_{{s}}.app') for s in {services}]; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
