"""Hostile media through the doors by which media come in: refused with their reason, while what is sound goes through in bounded memory."""

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import psutil
import pytest
from botocore.client import Config
from PIL import Image
from vesta import ApiError, Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import BucketSource, CreateSourceRequest, FolderSource, Source, Sync, UploadSource
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
from vesta_local.engines import objects
from vesta_local.services import NAMES
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(300)]

MEMORY_GROWTH_BYTES_MAX = 1024 * 1024 * 1024
MEMORY_LOOK_SECONDS = 0.05


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _bomb(side_px: int, pixels: bytes = b"") -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def _growing_webp() -> bytes:
    """Nine megapixels of noise that repeats: its header passes, and as a PNG, as which it would be kept, it is too large."""
    rows = np.random.default_rng(1).integers(0, 256, (4, 3000, 4), dtype=np.uint8)
    return _encoded(Image.fromarray(np.tile(rows, (750, 1, 1))), "WEBP", lossless=True, quality=0, method=0)


def _noise(width: int) -> bytes:
    """A sound picture; another width is another picture."""
    return _encoded(Image.effect_noise((width, 200), 60).convert("RGB"), "JPEG")


def _hostile() -> dict[str, tuple[bytes, str]]:
    """File names with what is in them, and the reason for which each is refused."""
    photo, drawing = _noise(300), _encoded(Image.effect_noise((300, 200), 80).convert("RGB"), "PNG")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    animation: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return {
        "truncated.jpg": (photo[: len(photo) // 2], "IMAGE_TRUNCATED"),
        "truncated.png": (drawing[: len(drawing) // 2], "IMAGE_TRUNCATED"),
        "gigapixels.png": (_bomb(60_000, bytes(16 << 20)), "IMAGE_TOO_LARGE"),
        "hundred-megapixels.png": (_bomb(10_000), "IMAGE_TOO_LARGE"),
        "hundred-megapixels.jpg": (_encoded(Image.new("L", (10_000, 10_000)), "JPEG"), "IMAGE_TOO_LARGE"),
        "too-few-pixels.png": (_bomb(7_000), "IMAGE_TRUNCATED"),
        "growing.webp": (_growing_webp(), "IMAGE_TOO_LARGE"),
        "animated.gif": (_encoded(frames[0], "GIF", **animation), "IMAGE_ANIMATED"),
        "animated.png": (_encoded(frames[0], "PNG", **animation), "IMAGE_ANIMATED"),
        "wrong-extension.jpg": (b"%PDF-1.7 not an image at all", "IMAGE_FORMAT_UNSUPPORTED"),
        "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "IMAGE_FORMAT_UNSUPPORTED"),
        "empty.png": (b"", "IMAGE_EMPTY"),
    }


HOSTILE = _hostile()
REASONS = {name: reason for name, (_, reason) in HOSTILE.items()}


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


@pytest.fixture(autouse=True)
def bounded(platform: WholePlatform) -> Iterator[None]:
    """Watches while a test runs that the services and their children do not grow beyond bounds, even for a moment."""
    services = [
        psutil.Process(one.pid) for one in platform.platform.supervisor.states() if one.name in NAMES and one.pid
    ]

    def memory_bytes() -> int:
        total = 0
        for process in services:
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
        return total

    ended = threading.Event()
    before = peak = memory_bytes()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(MEMORY_LOOK_SECONDS):
            peak = max(peak, memory_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    yield
    ended.set()
    watching.join()
    assert peak - before < MEMORY_GROWTH_BYTES_MAX


@pytest.mark.parametrize("name", HOSTILE)
def test_the_upload_refuses_it_and_says_why(door: tuple[Vesta, str, str], name: str, tmp_path: Path) -> None:
    owner, project, _ = door
    path = tmp_path / name
    path.write_bytes(HOSTILE[name][0])
    with pytest.raises(ApiError) as refused:
        owner.upload(f"{project}/sources/desk", path)
    assert (refused.value.code, refused.value.reason) == ("INVALID_ARGUMENT", REASONS[name])


@pytest.mark.parametrize("name", HOSTILE)
def test_rest_refuses_it_and_says_why(platform: WholePlatform, door: tuple[Vesta, str, str], name: str) -> None:
    _, project, _ = door
    answer = httpx.post(
        f"http://{platform.addresses['gateway']}/v1/{project}/sources/desk:upload",
        params={"fileName": name},
        content=HOSTILE[name][0],
        headers={"Authorization": f"Bearer {platform.owner_key}", "Content-Type": "image/jpeg"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["reason"] == REASONS[name]


def _folder(platform: WholePlatform) -> Source:
    folder = platform.home.inbox / f"hostile-{new_id()}"
    folder.mkdir()
    for name, (data, _) in HOSTILE.items():
        (folder / name).write_bytes(data)
    (folder / "sound.jpg").write_bytes(_noise(301))
    return Source(folder=FolderSource(path=str(folder)))


def _bucket(platform: WholePlatform) -> Source:
    home, place = platform.home, f"hostile-{new_id()}"
    key, secret = home.secrets["s3_access_key"], home.secrets["s3_secret_key"]
    endpoint = objects.endpoint(home)
    store = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}),
    )
    for name, data in {**{name: data for name, (data, _) in HOSTILE.items()}, "sound.jpg": _noise(302)}.items():
        store.put_object(Bucket=objects.BUCKETS[0], Key=f"{place}/{name}", Body=data)
    url = f"s3://{objects.BUCKETS[0]}/{place}"
    return Source(bucket=BucketSource(url=url, endpoint_url=endpoint, access_key_id=key, secret_access_key=secret))


@pytest.mark.parametrize("place", [_folder, _bucket])
def test_a_sync_refuses_them_and_takes_the_sound_one(
    platform: WholePlatform, door: tuple[Vesta, str, str], place: Callable[[WholePlatform], Source]
) -> None:
    owner, project, dataset = door
    source = place(platform)
    source.dataset = dataset
    request = CreateSourceRequest(parent=project, source_id=f"s{new_id()}", source=source)
    ended = owner.sync(owner.sources.CreateSource(request).name)
    assert {refusal.file_name: refusal.reason for refusal in ended.refusals} == REASONS
    assert all(refusal.message for refusal in ended.refusals)
    assert (Sync.State.Name(ended.state), ended.added_count, ended.refused_count) == ("SUCCEEDED", 1, len(HOSTILE))


def test_an_import_refuses_them_and_takes_the_sound_one(door: tuple[Vesta, str, str], tmp_path: Path) -> None:
    owner, project, dataset = door
    archive = tmp_path / "hostile.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, (data, _) in HOSTILE.items():
            opened.writestr(f"thing/{name}", data)
        opened.writestr("thing/sound.jpg", _noise(310))
    key = owner.upload_archive(project, archive)
    request = ImportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, archive_key=key)
    done = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    told = ImportDatasetResponse()
    assert done.response.Unpack(told), done.error.message
    refusals = dict(refusal.split(": ", 1) for refusal in told.refusals)
    assert (told.added_count, told.refused_count) == (1, len(HOSTILE)), refusals
    assert {Path(name).name for name in refusals} == set(HOSTILE)
    assert all(refusals.values())


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
