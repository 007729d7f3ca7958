"""Hostile media through every door: each is refused with its reason, what is sound beside it goes through, and memory stays bounded."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from vesta import ApiError, Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, UploadSource
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    ImportDatasetRequest,
    ImportDatasetResponse,
    Taxonomy,
)
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(300)]

MEMORY_GROWTH_BYTES_MAX = 700 * 1024 * 1024


def _encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _huge_png(side: int) -> bytes:
    """A few bytes that claim side x side pixels, with pixels that inflate to far more than they are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1024 * 1024 * 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _hostile() -> dict[str, bytes]:
    photo = _encoded(Image.effect_noise((300, 200), 80).convert("RGB"), "JPEG")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    return {
        "truncated.jpg": photo[: len(photo) // 2],
        "bomb.png": _huge_png(60_000),
        "hundred-megapixels.png": _huge_png(10_000),
        "animated.gif": _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "wrong-extension.jpg": b"%PDF-1.7 not an image at all",
        "vector.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "empty.png": b"",
    }


@pytest.fixture(scope="module")
def door(platform: WholePlatform) -> tuple[Vesta, str, str]:
    """A client, a project and a dataset."""
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"t{new_id()}", project=Project())).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy_id="t", taxonomy=Taxonomy(concepts=[Concept(id="thing")]))
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset_id="d", dataset=Dataset(taxonomy=taxonomy))
    ).name
    owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source_id="desk", source=Source(dataset=dataset, upload=UploadSource()))
    )
    return owner, project, dataset


@pytest.fixture
def bounded(platform: WholePlatform) -> Callable[[], None]:
    """Asserts that the connection service and its children have not grown beyond bounds since."""

    def memory() -> int:
        process = psutil.Process(platform.platform.supervisor.pid("connection"))
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])

    before = memory()

    def check() -> None:
        assert memory() - before < MEMORY_GROWTH_BYTES_MAX

    return check


@pytest.mark.parametrize("name", sorted(_hostile()))
def test_the_upload_refuses_it_and_says_why(
    door: tuple[Vesta, str, str], name: str, tmp_path: Path, bounded: Callable[[], None]
) -> None:
    owner, project, _ = door
    path = tmp_path / name
    path.write_bytes(_hostile()[name])
    with pytest.raises(ApiError) as refused:
        owner.upload(f"{project}/sources/desk", path)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.reason.startswith("IMAGE_")
    bounded()


@pytest.mark.parametrize("name", sorted(_hostile()))
def test_rest_refuses_it_and_says_why(platform: WholePlatform, door: tuple[Vesta, str, str], name: str) -> None:
    _, project, _ = door
    answer = httpx.post(
        f"http://{platform.addresses['gateway']}/v1/{project}/sources/desk:upload",
        params={"fileName": name},
        content=_hostile()[name],
        headers={"Authorization": f"Bearer {platform.owner_key}", "Content-Type": "image/jpeg"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["reason"].startswith("IMAGE_")


def test_a_sync_refuses_them_and_takes_the_sound_one(
    platform: WholePlatform, door: tuple[Vesta, str, str], bounded: Callable[[], None]
) -> None:
    owner, project, dataset = door
    folder = platform.home.inbox / f"hostile-{new_id()}"
    folder.mkdir()
    for name, data in _hostile().items():
        (folder / name).write_bytes(data)
    (folder / "sound.jpg").write_bytes(_encoded(Image.effect_noise((300, 200), 60).convert("RGB"), "JPEG"))
    source = owner.sources.CreateSource(
        CreateSourceRequest(
            parent=project, source_id=folder.name, source=Source(dataset=dataset, folder=FolderSource(path=str(folder)))
        )
    ).name
    ended = owner.sync(source)
    assert (ended.added_count, ended.refused_count) == (1, len(_hostile()))
    assert {refusal.file_name for refusal in ended.refusals} == set(_hostile())
    assert all(refusal.reason.startswith("IMAGE_") and refusal.message for refusal in ended.refusals)
    bounded()


def test_an_import_refuses_them_and_takes_the_sound_one(
    door: tuple[Vesta, str, str], tmp_path: Path, bounded: Callable[[], None]
) -> None:
    owner, project, dataset = door
    archive = tmp_path / "hostile.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in _hostile().items():
            opened.writestr(f"thing/{name}", data)
        opened.writestr("thing/sound.jpg", _encoded(Image.effect_noise((310, 200), 60).convert("RGB"), "JPEG"))
    key = owner.upload_archive(project, archive)
    request = ImportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, archive_key=key)
    done = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    told = ImportDatasetResponse()
    assert done.response.Unpack(told), done.error.message
    assert told.added_count == 1
    bounded()


def test_an_archive_that_reaches_outside_itself_is_refused(door: tuple[Vesta, str, str], tmp_path: Path) -> None:
    owner, project, dataset = door
    archive = tmp_path / "escape.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../escape.jpg", b"x")
    key = owner.upload_archive(project, archive)
    request = ImportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, archive_key=key)
    done = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    assert "leads outside" in done.error.message


def test_what_is_no_archive_is_refused_at_the_door(door: tuple[Vesta, str, str], tmp_path: Path) -> None:
    owner, project, _ = door
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(ApiError) as refused:
        owner.upload_archive(project, tmp_path / "x.zip")
    assert refused.value.reason == "ARCHIVE_NOT_ZIP"
