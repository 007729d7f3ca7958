"""What README.md tells a newcomer to type works as it is written, from an empty project to a prediction."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from vesta import Vesta
from vesta_contracts.conductor.v1 import GetLoopRequest, LoopStatus
from vesta_contracts.datasets.v1 import GetDatasetRequest, SplitPolicy
from vesta_contracts.training.v1 import GetModelVersionRequest
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
STARTS = "make up"
"""What the fixture has done before: the platform of this checkout is nobody's to start here."""
DATASET, LOOP = "projects/acme/datasets/digits", "projects/acme/loops/digits"


def section(document: Path, title: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"^## ", document.read_text().partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str) -> list[str]:
    """The lines of indented code, in order."""
    return re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)


@dataclass
class Typed:
    """What came of what was typed.

    Attributes:
        folder: stands for the checkout.
        printed: on the terminal, by command.
    """

    folder: Path
    printed: dict[str, str]
    owner: Vesta


def type_in(folder: Path, lines: list[str]) -> dict[str, str]:
    """Types lines into one shell, in a folder, with nothing but the system's programs on the path; answers what each printed."""
    marked = "\n".join(f"{line}\nprintf '%s\\n' '\x1e'" for line in lines)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", marked],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(zip(lines, done.stdout.split("\x1e\n"), strict=False))


@pytest.fixture(scope="module")
def typed(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    """README's commands, typed one after another beside the platform."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".vesta").symlink_to(platform.home.root)
    (folder / "examples").symlink_to(ROOT / "examples")
    first, *lines = commands(section(ROOT / "README.md", "Your first ten minutes"))
    assert first == STARTS
    printed = type_in(folder, lines)
    with Vesta(platform.addresses["gateway_grpc"], platform.owner_key) as owner:
        yield Typed(folder, printed, owner)


def test_the_dataset_has_a_labelled_test_split(typed: Typed) -> None:
    dataset = typed.owner.datasets.GetDataset(GetDatasetRequest(name=DATASET))
    counts = dataset.counts
    assert dataset.split_policy == SplitPolicy(validation_share=0, test_share=0.2)
    assert counts.labelled_count == counts.item_count > 150
    assert 0.1 < counts.test_item_count / counts.item_count < 0.3
    told = typed.printed[f"vesta get {DATASET}"]
    assert f"testData 0 of {counts.test_item_count} test items are labelled" in told  # before the labels came


def test_the_loop_reports_the_metrics_of_the_deployed_model(typed: Typed) -> None:
    status = typed.owner.loops.GetLoop(GetLoopRequest(name=LOOP)).status
    metrics = status.champion_metrics
    assert status.champion == "projects/acme/models/digits/versions/1"
    assert metrics.item_count > 20
    assert metrics.accuracy.value > 0.6
    assert f"accuracy {100 * metrics.accuracy.value:.1f} % (95 % interval" in typed.printed[f"vesta get {LOOP}"]
    followed = typed.printed[f"vesta loop watch {LOOP}"]
    assert "TRAINING" in followed
    assert followed.strip().splitlines()[-1].startswith(LoopStatus.Phase.Name(LoopStatus.EXHAUSTED))


def test_the_card_lists_training_and_test_items(typed: Typed) -> None:
    champion = typed.owner.loops.GetLoop(GetLoopRequest(name=LOOP)).status.champion
    version = typed.owner.models.GetModelVersion(GetModelVersionRequest(name=champion))
    assert (version.metrics_missing_reason, version.HasField("excluded")) == ("", False)
    assert f"On {version.metrics.item_count} test items" in version.card


def test_the_model_predicts_every_requested_image(typed: Typed) -> None:
    (told,) = (text for line, text in typed.printed.items() if line.startswith("vesta predict"))
    answers = [line.split("\t") for line in told.strip().splitlines()]
    assert len(answers) == 20
    assert all(path.startswith(".vesta/digits/7/") for path, _ in answers)
    assert sum(labels.startswith("7 ") for _, labels in answers) > 10


def test_the_commands_and_the_code_of_the_sdk_page_work_afterwards(
    typed: Typed, platform: WholePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "libs" / "client" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(typed.folder)
    monkeypatch.setitem(os.environ, "VESTA_ADDRESS", platform.addresses["gateway_grpc"])
    monkeypatch.setitem(os.environ, "VESTA_API_KEY", platform.owner_key)
    with redirect_stdout(io.StringIO()) as shown:
        exec(compile(code, "README.md", "exec"), {})
    assert 'concept: "' in shown.getvalue()
    lines = [line for line in commands(re.sub(r"```.*?```", "", page, flags=re.DOTALL)) if line.startswith("vesta ")]
    printed = type_in(typed.folder, ['export PATH="$PWD/.venv/bin:$PATH"', *lines])
    assert "/items/" in printed[lines[0]]
    assert (typed.folder / ".vesta" / "exported.zip").stat().st_size > 0
    assert "95 % interval" in printed["vesta list projects/acme/models/digits/versions"]
