"""Hostile media through the doors by which items come in: refused with their reason, while what is sound goes through in bounded memory."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hostile_media import HOSTILE, REASONS, noise
from vesta import ApiError, Vesta
from vesta_common.ids import new_id
from vesta_common.storage.objects import open_client
from vesta_contracts.connection.v1 import BucketSource, CreateSourceRequest, FolderSource, Source, Sync
from vesta_contracts.datasets.v1 import ArchiveFormat, ImportDatasetRequest, ImportDatasetResponse, ListItemsRequest
from vesta_local.engines.addresses import admin_settings
from vesta_local.testing import WholePlatform

pytestmark = [
    pytest.mark.platform,
    pytest.mark.no_events,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("bounded"),
]


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
    (folder / "sound.jpg").write_bytes(noise(301))
    return Source(folder=FolderSource(path=str(folder)))


def _bucket(platform: WholePlatform) -> Source:
    engines, place = admin_settings(platform.home), f"hostile-{new_id()}"
    store = open_client(engines)
    for name, data in {**{name: data for name, (data, _) in HOSTILE.items()}, "sound.jpg": noise(302)}.items():
        store.put_object(Bucket=engines.s3_bucket, Key=f"{place}/{name}", Body=data)
    bucket = BucketSource(
        url=f"s3://{engines.s3_bucket}/{place}",
        endpoint_url=engines.s3_endpoint_url,
        access_key_id=engines.s3_access_key,
        secret_access_key=engines.s3_secret_key.get_secret_value(),
    )
    return Source(bucket=bucket)


@pytest.mark.parametrize("place", [_folder, _bucket])
def test_a_sync_refuses_them_and_takes_the_sound_one(
    platform: WholePlatform, door: tuple[Vesta, str, str], place: Callable[[WholePlatform], Source]
) -> None:
    owner, project, dataset = door
    source = place(platform)
    source.dataset = dataset
    request = CreateSourceRequest(parent=project, source_id=f"s{new_id()}", source=source)
    ended = owner.sync(owner.sources.CreateSource(request).name)
    assert {rejection.file_name: rejection.reason for rejection in ended.rejections} == REASONS
    assert all(rejection.message for rejection in ended.rejections)
    assert (Sync.State.Name(ended.state), ended.added_count, ended.rejected_count) == ("SUCCEEDED", 1, len(HOSTILE))


def _in_folders(pictures: dict[str, bytes]) -> dict[str, bytes]:
    return {f"thing/{name}": data for name, data in pictures.items()}


def _in_coco(pictures: dict[str, bytes]) -> dict[str, bytes]:
    """With an object in two parts in each picture, whose size is not told: to draw it somebody has to look into the file."""
    numbered = list(enumerate(pictures, 1))
    parts = [[10, 10, 40, 10, 40, 40], [60, 60, 90, 60, 90, 90]]
    told = {
        "images": [{"id": number, "file_name": name} for number, name in numbered],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [10, 10, 80, 80],
                "segmentation": parts,
            }
            for number, _ in numbered
        ],
    }
    listed = {f"images/{name}": data for name, data in pictures.items()}
    return {"annotations/instances_train.json": json.dumps(told).encode(), **listed}


@pytest.mark.parametrize(
    ("layout", "laid_out", "sound", "shape"),
    [
        (ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, _in_folders, 310, "image_label"),
        (ArchiveFormat.ARCHIVE_FORMAT_COCO, _in_coco, 311, "mask"),
    ],
)
def test_an_import_refuses_them_and_takes_the_sound_one(
    door: tuple[Vesta, str, str],
    tmp_path: Path,
    layout: ArchiveFormat.ValueType,
    laid_out: Callable[[dict[str, bytes]], dict[str, bytes]],
    sound: int,
    shape: str,
) -> None:
    owner, project, dataset = door
    archive = tmp_path / "hostile.zip"
    pictures = {**{name: data for name, (data, _) in HOSTILE.items()}, f"sound-{sound}.jpg": noise(sound)}
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in laid_out(pictures).items():
            opened.writestr(name, data)
    key = owner.upload_archive(project, archive)
    done = owner.wait_for_operation(
        owner.datasets.ImportDataset(ImportDatasetRequest(name=dataset, format=layout, archive_key=key)).name
    )
    told = ImportDatasetResponse()
    assert done.response.Unpack(told), done.error.message
    rejections = dict(rejection.split(": ", 1) for rejection in told.rejections)
    assert (told.added_count, told.rejected_count) == (1, len(HOSTILE)), rejections
    assert {Path(name).name for name in rejections} == set(HOSTILE)
    assert all(rejections.values())
    items = owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset))
    (added,) = (item for item in items if item.media.provenance.file_name.endswith(f"sound-{sound}.jpg"))
    assert [one.WhichOneof("shape") for one in added.accepted.annotations] == [shape]


def test_an_archive_that_reaches_outside_itself_is_refused(door: tuple[Vesta, str, str], tmp_path: Path) -> None:
    owner, project, dataset = door
    archive = tmp_path / "escape.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../escape.jpg", b"x")
    key = owner.upload_archive(project, archive)
    request = ImportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, archive_key=key)
    done = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    assert "is outside of the archive" in done.error.message


def test_what_is_no_archive_is_refused_at_the_door(door: tuple[Vesta, str, str], tmp_path: Path) -> None:
    owner, project, _ = door
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(ApiError) as refused:
        owner.upload_archive(project, tmp_path / "x.zip")
    assert refused.value.reason == "ARCHIVE_NOT_ZIP"
