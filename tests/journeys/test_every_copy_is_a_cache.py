"""Every local copy of every service is deleted in each phase of the loop while it turns on the real object store, and it completes."""

import shutil
from pathlib import Path

import pytest
from small_loop import SmallLoop, patiently, set_up
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import ArchiveFormat, ExportDatasetRequest, ExportDatasetResponse
from vesta_local.engines import storage
from vesta_local.home import Home
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]


def copies(home: Home) -> list[Path]:
    """Where services and engines keep what lies elsewhere too, or what is of use only for a while."""
    return [
        home.data / "training",  # embeddings, backbones, champions, weights, runs under way
        home.data / "datasets",  # imports and exports under way
        home.data / "inference" / "loaded",  # Triton's copies of its models
        *home.sockets.glob("*.sock"),  # of the object store, which has ports too; the supervisor's stays
        *storage.sockets(home),
    ]


def delete(path: Path) -> bool:
    """Deletes a folder or a socket; answers whether it was there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return True
    if path.exists() and path.name != "supervisor.sock":
        path.unlink(missing_ok=True)
        return True
    return False


class Deleting:
    """Deletes every copy whenever the loop comes to another phase or round, so also under a run that has just begun."""

    def __init__(self, home: Home) -> None:
        self.found: set[str] = set()
        self._home = home
        self._seen: set[tuple[int, int]] = set()

    def is_exhausted(self, status: LoopStatus) -> bool:
        """Whether the loop has completed; deletes where it has come on since it was last asked."""
        place = (status.phase, len(status.rounds))
        if place not in self._seen:
            self._seen.add(place)
            self.found.update(path.name for path in copies(self._home) if delete(path))
        return status.phase == LoopStatus.EXHAUSTED


@pytest.fixture(scope="module")
def small(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    return set_up(platform, tmp_path_factory.mktemp("samples"), images_per_class=40, budget=40, batch=20)


@pytest.mark.own_engines
def test_the_loop_completes_while_all_local_copies_are_deleted_in_each_phase(
    platform: WholePlatform, small: SmallLoop
) -> None:
    deleting = Deleting(platform.home)
    small.turn_until(deleting.is_exhausted, seconds=400)
    assert [one.number for one in small.ended_rounds()] == [1, 2]
    assert all(one.model_version for one in small.ended_rounds())
    assert {"training", "loaded"} <= deleting.found


@pytest.mark.own_engines
def test_models_that_are_deleted_while_in_use_are_loaded_again(platform: WholePlatform, small: SmallLoop) -> None:
    for path in copies(platform.home):
        delete(path)
    platform.kill("inference")  # what it had in memory is gone with it
    platform.wait_healthy()
    status = small.status()

    def answers() -> bool:
        (answer,) = small.owner.predict(status.deployment, [small.unused[0].read_bytes()])
        return bool(answer.model_version == status.champion)

    assert patiently(answers)


def test_an_export_completes_while_its_folder_is_deleted(platform: WholePlatform, small: SmallLoop) -> None:
    request = ExportDatasetRequest(name=small.dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER)
    delete(platform.home.data / "datasets")
    exported = small.owner.wait_for_operation(small.owner.datasets.ExportDataset(request).name)
    answer = ExportDatasetResponse()
    assert exported.response.Unpack(answer), exported.error.message
    assert answer.item_count > 0
