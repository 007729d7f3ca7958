"""What the other services rely on of connection: of the real one and of fakes."""

from collections.abc import Iterator

import pytest
from contract import contract
from google.api.httpbody_pb2 import HttpBody
from images import a_jpeg
from peers import Peer, refused
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_contracts.connection.v1 import GetSourceRequest, SourceServiceServicer, UploadItemRequest

pytestmark = pytest.mark.no_events

NO_IMAGE = b"no image, whatever its name says"


def a_file(source: str, data: bytes, request_id: str = "") -> Iterator[UploadItemRequest]:
    """Returns the messages of an upload."""
    return iter([UploadItemRequest(parent=source, file=HttpBody(data=data), request_id=request_id or new_id())])


@contract(SourceServiceServicer.GetSource)
def test_get_source_returns_the_source_and_its_kind(peer: Peer) -> None:
    upload, folder = (
        peer.sources.GetSource(GetSourceRequest(name=name)) for name in (peer.has.source, peer.has.folder)
    )
    assert (upload.name, upload.WhichOneof("kind")) == (peer.has.source, "upload")
    assert (folder.name, folder.WhichOneof("kind")) == (peer.has.folder, "folder")


@contract(SourceServiceServicer.GetSource)
def test_get_source_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/sources/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.sources.GetSource(GetSourceRequest(name=name))


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_upload_item_returns_the_first_response_of_a_request_id(peer: Peer) -> None:
    data, request_id = a_jpeg(int(new_id(), 36) % 2**32), new_id()
    first = peer.sources.UploadItem(a_file(peer.has.source, data, request_id))
    assert first.item.startswith(f"{peer.has.project}/datasets/")
    assert not first.already_existed
    assert peer.sources.UploadItem(a_file(peer.has.source, data, request_id)) == first


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_an_image_that_is_uploaded_twice_is_one_item(peer: Peer) -> None:
    data = a_jpeg(int(new_id(), 36) % 2**32)
    first, again = (peer.sources.UploadItem(a_file(peer.has.source, data)) for _ in range(2))
    other = peer.sources.UploadItem(a_file(peer.has.source, a_jpeg(int(new_id(), 36) % 2**32)))
    assert (first.already_existed, again.already_existed, other.already_existed) == (False, True, False)
    assert first.item == again.item != other.item
    assert first.media.sha256 == again.media.sha256 != other.media.sha256


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_upload_item_rejects_a_request_id_of_another_request(peer: Peer) -> None:
    request_id = new_id()
    peer.sources.UploadItem(a_file(peer.has.source, a_jpeg(1), request_id))
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request_id):
        peer.sources.UploadItem(a_file(peer.has.source, a_jpeg(2), request_id))


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_upload_item_to_an_unknown_source_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/sources/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.sources.UploadItem(a_file(name, a_jpeg(1)))


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_upload_item_to_a_folder_is_refused(peer: Peer) -> None:
    with refused(FailedPrecondition, "SOURCE_NOT_UPLOAD"):
        peer.sources.UploadItem(a_file(peer.has.folder, a_jpeg(1)))


@contract(SourceServiceServicer.UploadItem, of=("pipelining",))
def test_upload_item_refuses_what_is_no_image(peer: Peer) -> None:
    with refused(InvalidArgument, "IMAGE_FORMAT_UNSUPPORTED"):
        peer.sources.UploadItem(a_file(peer.has.source, NO_IMAGE))


@contract(SourceServiceServicer.UploadItem, of=("gateway",))
def test_a_file_is_uploaded_in_several_messages(peer: Peer) -> None:
    file = a_jpeg(3)
    messages = [
        UploadItemRequest(parent=peer.has.source, file=HttpBody(data=file[:500]), request_id=new_id()),
        UploadItemRequest(file=HttpBody(data=file[500:])),
    ]
    answer = peer.sources.UploadItem(iter(messages))
    assert answer.item.startswith(f"{peer.has.project}/datasets/")
    assert len(bytes.fromhex(answer.media.sha256)) == 32
    assert answer.media.size_bytes > 0
