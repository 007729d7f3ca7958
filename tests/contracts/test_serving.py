"""What the other services rely on of serving: of the real one and of fakes."""

import pytest
from contract import contract
from google.protobuf.field_mask_pb2 import FieldMask
from images import a_jpeg
from peers import Peer, refused
from vesta_common.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    DeploymentServiceServicer,
    GetDeploymentRequest,
    ListDeploymentsRequest,
    PredictInput,
    PredictRequest,
    UncertaintyPolicy,
    UpdateDeploymentRequest,
)

pytestmark = pytest.mark.no_events


def creation(peer: Peer, **fields: object) -> CreateDeploymentRequest:
    """Returns the request for a new deployment."""
    deployment = Deployment(**{"model_version": peer.has.model_version, **fields})
    return CreateDeploymentRequest(
        parent=peer.has.project, deployment_id=f"d{new_id()}", deployment=deployment, request_id=new_id()
    )


def get(peer: Peer, name: str) -> Deployment:
    return peer.deployments.GetDeployment(GetDeploymentRequest(name=name))


@contract(DeploymentServiceServicer.GetDeployment)
def test_get_deployment_returns_the_deployment(peer: Peer) -> None:
    assert get(peer, peer.has.deployments[0]).name == peer.has.deployments[0]


@contract(DeploymentServiceServicer.GetDeployment)
def test_get_deployment_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/deployments/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        get(peer, name)


@contract(DeploymentServiceServicer.GetDeployment, of=("conductor",))
def test_a_ready_deployment_has_a_stable_version_and_scores_its_datasets_with_it(peer: Peer) -> None:
    found = get(peer, peer.has.deployments[0])
    assert found.state == Deployment.READY
    assert found.stable_version == found.model_version == found.scoring.model_version == peer.has.model_version
    assert found.scoring.scored_count == found.scoring.item_count == len(peer.has.items)


@contract(DeploymentServiceServicer.ListDeployments)
@pytest.mark.parametrize("page_size", [0, 1, 1000])
def test_list_deployments_returns_each_deployment_of_the_project_once_by_name(peer: Peer, page_size: int) -> None:
    request = ListDeploymentsRequest(parent=peer.has.project, page_size=page_size)
    found: list[Deployment] = []
    while True:
        page = peer.deployments.ListDeployments(request)
        assert not page_size or len(page.deployments) <= page_size
        found += page.deployments
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    names = [deployment.name for deployment in found]
    assert names == sorted(set(names))
    assert set(peer.has.deployments) <= set(names)
    assert all(deployment.model_version for deployment in found)


@contract(DeploymentServiceServicer.ListDeployments)
def test_list_deployments_of_another_project_returns_none_of_this(peer: Peer) -> None:
    page = peer.deployments.ListDeployments(ListDeploymentsRequest(parent=f"{peer.has.project}-other"))
    assert (len(page.deployments), page.next_page_token) == (0, "")


@contract(DeploymentServiceServicer.Predict, of=("pipelining",))
def test_predict_scores_every_concept_of_an_image_in_descending_order(peer: Peer) -> None:
    inputs = [PredictInput(data=a_jpeg(seed)) for seed in range(4)]
    found = peer.deployments.Predict(PredictRequest(name=peer.has.deployments[0], inputs=inputs)).predictions
    assert len(found) == len(inputs)
    for image in found:
        assert not image.reason
        assert image.prediction.model_version == peer.has.model_version
        assert {score.concept for score in image.prediction.scores} == set(peer.has.model_concepts)
        assert 0 <= image.prediction.margin <= 1
        scores = [score.score for score in image.prediction.scores]
        assert scores == sorted(scores, reverse=True)


@contract(DeploymentServiceServicer.Predict, of=("pipelining",))
def test_predict_says_why_an_image_was_refused_and_predicts_the_others(peer: Peer) -> None:
    inputs = [PredictInput(data=data) for data in (a_jpeg(1), b"no image, whatever its name says", a_jpeg(2))]
    first, broken, last = peer.deployments.Predict(
        PredictRequest(name=peer.has.deployments[0], inputs=inputs)
    ).predictions
    assert broken.reason == "IMAGE_FORMAT_UNSUPPORTED"
    assert broken.message
    assert not broken.HasField("prediction")
    assert first.prediction.model_version == last.prediction.model_version == peer.has.model_version


@contract(DeploymentServiceServicer.Predict, of=("pipelining",))
def test_predict_of_an_unknown_deployment_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/deployments/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.deployments.Predict(PredictRequest(name=name, inputs=[PredictInput(data=a_jpeg(1))]))


@contract(DeploymentServiceServicer.Predict, of=("gateway",))
def test_predict_returns_one_prediction_per_image(peer: Peer) -> None:
    request = PredictRequest(
        name=peer.has.deployments[0], inputs=[PredictInput(data=a_jpeg(seed)) for seed in range(3)]
    )
    assert len(peer.deployments.Predict(request).predictions) == 3


@contract(DeploymentServiceServicer.CreateDeployment)
def test_a_new_deployment_is_loading_and_its_request_id_returns_the_first_response(peer: Peer) -> None:
    request = creation(peer, datasets=[peer.has.dataset])
    made = peer.deployments.CreateDeployment(request)
    assert made.name == f"{peer.has.project}/deployments/{request.deployment_id}"
    assert made.state == Deployment.LOADING
    assert not made.stable_version
    assert made.datasets == [peer.has.dataset]
    assert peer.deployments.CreateDeployment(request) == made


@contract(DeploymentServiceServicer.CreateDeployment)
def test_create_deployment_rejects_a_request_id_of_another_request(peer: Peer) -> None:
    request = creation(peer)
    peer.deployments.CreateDeployment(request)
    request.deployment_id = f"d{new_id()}"
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.deployments.CreateDeployment(request)


@contract(DeploymentServiceServicer.CreateDeployment)
def test_create_deployment_refuses_a_name_that_is_taken(peer: Peer) -> None:
    request = creation(peer)
    request.deployment_id = peer.has.deployments[0].rpartition("/")[2]
    with refused(AlreadyExists, "RESOURCE_EXISTS", name=peer.has.deployments[0]):
        peer.deployments.CreateDeployment(request)


@contract(DeploymentServiceServicer.CreateDeployment)
def test_create_deployment_refuses_an_unknown_model_version(peer: Peer) -> None:
    with refused(InvalidArgument, "MODEL_VERSION_NOT_FOUND"):
        peer.deployments.CreateDeployment(creation(peer, model_version=f"{peer.has.project}/models/vans/versions/99"))


@contract(DeploymentServiceServicer.CreateDeployment, DeploymentServiceServicer.UpdateDeployment)
def test_update_deployment_changes_the_fields_of_the_mask_alone(peer: Peer) -> None:
    made = peer.deployments.CreateDeployment(creation(peer, display_name="before", datasets=[peer.has.dataset]))
    wanted = Deployment(name=made.name, display_name="after", uncertainty=UncertaintyPolicy(score_certain=0.9))
    mask = FieldMask(paths=["uncertainty", "datasets"])
    updated = peer.deployments.UpdateDeployment(UpdateDeploymentRequest(deployment=wanted, update_mask=mask))
    assert (updated.display_name, updated.model_version) == ("before", made.model_version)
    assert (updated.uncertainty, list(updated.datasets)) == (wanted.uncertainty, [])
    assert updated.etag != made.etag


@contract(DeploymentServiceServicer.CreateDeployment, DeploymentServiceServicer.UpdateDeployment)
def test_update_deployment_rejects_a_stale_etag(peer: Peer) -> None:
    made = peer.deployments.CreateDeployment(creation(peer))
    request = UpdateDeploymentRequest(
        deployment=Deployment(name=made.name, display_name="changed", etag="stale"),
        update_mask=FieldMask(paths=["display_name"]),
    )
    with refused(Aborted, "ETAG_STALE", name=made.name):
        peer.deployments.UpdateDeployment(request)


@contract(DeploymentServiceServicer.UpdateDeployment, DeploymentServiceServicer.GetDeployment)
def test_update_deployment_accepts_the_current_etag(peer: Peer) -> None:
    current = get(peer, peer.has.deployments[0])
    request = UpdateDeploymentRequest(
        deployment=Deployment(name=current.name, display_name=new_id(), etag=current.etag),
        update_mask=FieldMask(paths=["display_name"]),
    )
    updated = peer.deployments.UpdateDeployment(request)
    assert updated.display_name == request.deployment.display_name
    assert updated.etag == get(peer, current.name).etag != current.etag


@contract(DeploymentServiceServicer.UpdateDeployment)
def test_update_deployment_rejects_fields_that_cannot_change(peer: Peer) -> None:
    request = UpdateDeploymentRequest(
        deployment=Deployment(name=peer.has.deployments[0]), update_mask=FieldMask(paths=["stable_version"])
    )
    with refused(InvalidArgument, "FIELD_IMMUTABLE"):
        peer.deployments.UpdateDeployment(request)


@contract(DeploymentServiceServicer.UpdateDeployment)
def test_update_deployment_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/deployments/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.deployments.UpdateDeployment(UpdateDeploymentRequest(deployment=Deployment(name=name)))
