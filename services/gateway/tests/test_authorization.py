"""The table of rights and the walls between projects."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument, PermissionDenied
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, Task
from vesta_contracts.conductor.v1 import CreateProjectRequest, ListProjectsRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, IngestMediaRequest, Source, UpdateSourceRequest
from vesta_contracts.datasets.v1 import (
    BatchCreateItemsRequest,
    CreateDatasetRequest,
    Dataset,
    GetDatasetRequest,
    Item,
    ListDatasetsRequest,
    NewItem,
    SearchItemsRequest,
    SelectItemsRequest,
    UpdateItemRequest,
)
from vesta_contracts.gateway.v1 import ApiKey, CreateApiKeyRequest, Role
from vesta_contracts.serving.v1 import ListPredictionsRequest, PredictInput, PredictRequest
from vesta_contracts.training.v1 import CreateStudyRequest, Study
from vesta_gateway.access.authorization import (
    ANY_MEMBER,
    NOBODY,
    PLATFORM_OWNER,
    RIGHTS,
    ROLES,
    Right,
    authorize,
    authorize_more,
    check_table,
)
from vesta_gateway.access.caller import Caller, platform_owner
from vesta_gateway.access.references import projects_in
from vesta_gateway.access.roles_page import roles_page
from vesta_gateway.contracts.methods import all_rpcs

RPCS = {rpc.full_name: rpc for rpc in all_rpcs()}
BY_REQUEST = {rpc.descriptor.input_type.full_name: rpc for rpc in all_rpcs()}
ALL_ROLES = [Role.ROLE_VIEWER, Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER]


def a_member(role=Role.ROLE_OWNER, project="projects/acme"):
    return Caller(key="k", project=project, member=f"{project}/members/ada", role=role)


def rpc_of(request):
    return BY_REQUEST[request.DESCRIPTOR.full_name]


def a_request(rpc, project="projects/acme"):
    """A request of an RPC that names a project and nothing else."""
    request = rpc.request_type()
    if rpc.scope:
        *above, last = rpc.scope.split(".")
        target = request
        for part in above:
            target = getattr(target, part)
        setattr(target, last, f"{project}/things/x")
    return request


def test_the_table_contains_every_rpc_and_nothing_else():
    check_table(all_rpcs())


def test_a_table_with_missing_or_unknown_rpcs_is_rejected():
    lacking = dict(list(RIGHTS.items())[1:])
    too_many = {**RIGHTS, "vesta.other.v1.OtherService.Do": Right.READERS}
    unscoped = {**RIGHTS, "vesta.conductor.v1.ProjectService.CreateProject": Right.OWNERS}

    with pytest.raises(ValueError, match="CreateCampaign has no access rule"):
        check_table(all_rpcs(), lacking)
    with pytest.raises(ValueError, match=r"OtherService\.Do is not an RPC"):
        check_table(all_rpcs(), too_many)
    with pytest.raises(ValueError, match="have no project"):
        check_table(all_rpcs(), unscoped)


def test_the_page_of_roles_is_generated_from_the_table():
    page = Path(__file__).resolve().parents[3] / "docs" / "roles.md"

    assert page.read_text() == roles_page(), "run: python -m vesta_gateway.access.roles_page > docs/roles.md"


@pytest.mark.parametrize("name", sorted(RIGHTS))
@pytest.mark.parametrize("role", ALL_ROLES)
def test_each_role_may_call_what_the_table_says_and_nothing_more(name, role):
    rpc, right = RPCS[name], RIGHTS[name]
    allowed = right is ANY_MEMBER or role in ROLES.get(right, ())

    if allowed:
        assert authorize(a_member(role), rpc, a_request(rpc)) == "projects/acme/members/ada"
    else:
        with pytest.raises(PermissionDenied) as caught:
            authorize(a_member(role), rpc, a_request(rpc))
        assert caught.value.reason == "ROLE_DENIED"


@pytest.mark.parametrize(
    "name", sorted(name for name in RIGHTS if RPCS[name].scope and RIGHTS[name] not in {NOBODY, PLATFORM_OWNER})
)
def test_no_role_calls_anything_in_another_project(name):
    for role in ALL_ROLES:
        with pytest.raises(PermissionDenied) as caught:
            authorize(a_member(role), RPCS[name], a_request(RPCS[name], "projects/other"))
        assert caught.value.reason == "PROJECT_DENIED"


def test_internal_rpcs_are_denied_to_all_roles():
    for caller in (platform_owner("k"), a_member()):
        with pytest.raises(PermissionDenied):
            authorize(caller, rpc_of(IngestMediaRequest()), IngestMediaRequest(parent="projects/acme"))


def test_only_the_platform_owner_creates_projects():
    request = CreateProjectRequest(project=Project())

    assert RIGHTS[rpc_of(request).full_name] is PLATFORM_OWNER
    assert authorize(platform_owner("k"), rpc_of(request), request) == "platform/owner"
    with pytest.raises(PermissionDenied, match="platform's owner"):
        authorize(a_member(), rpc_of(request), request)


def test_the_platform_owner_acts_in_a_project_as_the_member_owner():
    request = GetDatasetRequest(name="projects/any/datasets/d")

    assert authorize(platform_owner("k"), rpc_of(request), request) == "projects/any/members/owner"


FOREIGN = [
    CreateSourceRequest(parent="projects/acme", source=Source(dataset="projects/other/datasets/d")),
    UpdateSourceRequest(source=Source(name="projects/acme/sources/s", dataset="projects/other/datasets/d")),
    CreateDatasetRequest(parent="projects/acme", dataset=Dataset(name="projects/other/datasets/d")),
    PredictRequest(
        name="projects/acme/deployments/d",
        inputs=[PredictInput(data=b"x"), PredictInput(item="projects/other/datasets/d/items/i")],
    ),
    SearchItemsRequest(parent="projects/acme/datasets/d", item="projects/other/datasets/d/items/i"),
    SelectItemsRequest(parent="projects/acme/datasets/d", excluded=["projects/other/datasets/d/items/i"]),
    BatchCreateTasksRequest(
        parent="projects/acme/campaigns/c", tasks=[Task(), Task(item="projects/other/datasets/d/items/i")]
    ),
    BatchCreateTasksRequest(
        parent="projects/acme/campaigns/c", tasks=[Task(model_version="projects/other/models/m/versions/1")]
    ),
    CreateStudyRequest(
        parent="projects/acme", study=Study(recipes=["projects/acme/recipes/r", "projects/other/recipes/r"])
    ),
    CreateApiKeyRequest(parent="projects/acme", api_key=ApiKey(member="projects/other/members/ada")),
    CreateApiKeyRequest(parent="projects/acme", api_key=ApiKey(member="services/conductor")),
    CreateSourceRequest(parent="projects/acme", source=Source(dataset="projects/other")),
]
MALFORMED = [
    (GetDatasetRequest(name="projects/Ò"), "name", "2"),
    (GetDatasetRequest(name="projects/a\nb/datasets/d"), "name", "2"),
    (GetDatasetRequest(name="projects/acme/datasets/d\x7f"), "name", "4"),
    (GetDatasetRequest(name="projects//datasets/d"), "name", "2"),
    (GetDatasetRequest(name="projects/acme/Datasets/d"), "name", "3"),
    (ListDatasetsRequest(parent="projects/acme/"), "parent", "3"),
    (UpdateItemRequest(item=Item(name="projects/acme/datasets/d/items/ñ")), "item.name", "6"),
    (CreateSourceRequest(parent="projects/acme", source=Source(dataset="projects/../datasets/d")), "dataset", "2"),
    (CreateSourceRequest(parent="projects/acme", source=Source(dataset="/projects/acme/datasets/d")), "dataset", "1"),
    (SelectItemsRequest(parent="projects/acme/datasets/d", excluded=["projects/acme/\t"]), "excluded", "3"),
    (ListPredictionsRequest(parent="projects/acme/deployments/d", filter="item='projects/Ò'"), "filter", "2"),
    (ListPredictionsRequest(parent="projects/acme/deployments/d", filter="item=projects/acme/Ò"), "filter", "3"),
]


@pytest.mark.parametrize("request_", FOREIGN, ids=lambda request: type(request).__name__)
def test_a_name_of_another_project_anywhere_in_a_request_is_rejected(request_):
    for caller in (a_member(), platform_owner("k")):
        with pytest.raises(PermissionDenied) as caught:
            authorize(caller, rpc_of(request_), request_)
        assert caught.value.reason == "PROJECT_DENIED"


@pytest.mark.parametrize(("request_", "field", "position"), MALFORMED, ids=lambda value: str(value)[:40])
def test_a_malformed_name_is_rejected_with_its_field_and_segment(request_, field, position):
    for caller in (a_member(), platform_owner("k")):
        with pytest.raises(InvalidArgument) as caught:
            authorize(caller, rpc_of(request_), request_)
        assert caught.value.reason == "INVALID_NAME"
        assert caught.value.metadata["position"] == position
        assert [violation.field for violation in caught.value.violations] == [field]


@given(st.text(max_size=100))
def test_the_caller_fits_into_grpc_metadata(text):
    request = GetDatasetRequest(name=f"projects/{text}/datasets/d")
    try:
        acting = authorize(platform_owner("k"), rpc_of(request), request)
    except InvalidArgument:
        return
    assert acting.isascii()
    assert acting.isprintable()


def test_names_in_requests_without_a_project_are_validated():
    request = ListProjectsRequest(names=["projects/Ò"])
    with pytest.raises(InvalidArgument, match="segment 2") as caught:
        authorize(platform_owner("k"), rpc_of(request), request)
    assert caught.value.reason == "INVALID_NAME"


def test_malformed_names_in_later_messages_of_a_stream_are_rejected():
    with pytest.raises(InvalidArgument) as caught:
        authorize_more(a_member(), "projects/acme", ListDatasetsRequest(parent="projects/acme/ö"))
    assert caught.value.reason == "INVALID_NAME"


def test_names_of_the_same_project_and_plain_text_are_accepted():
    for request in (
        CreateSourceRequest(parent="projects/acme", source=Source(dataset="projects/acme/datasets/d")),
        CreateDatasetRequest(parent="projects/acme", dataset=Dataset(display_name="projects/other is what we copy")),
        ListDatasetsRequest(parent="projects/acme", page_token="projects"),
        UpdateItemRequest(
            item=Item(name="projects/acme/datasets/d/items/i", metadata={"from": "projects/other/datasets/d"})
        ),
        BatchCreateItemsRequest(parent="projects/acme/datasets/d", items=[NewItem()]),
    ):
        assert authorize(a_member(), rpc_of(request), request)


def test_a_request_without_a_project_is_rejected_with_a_message():
    for name in ("", "datasets/d", "projects"):
        with pytest.raises(InvalidArgument, match="starts with projects/") as caught:
            authorize(a_member(), rpc_of(GetDatasetRequest()), GetDatasetRequest(name=name))
        assert caught.value.reason == "PROJECT_UNKNOWN"


def test_later_messages_of_a_stream_may_omit_the_project_but_not_change_it():
    authorize_more(a_member(), "projects/acme", ListDatasetsRequest())
    with pytest.raises(PermissionDenied):
        authorize_more(a_member(), "projects/acme", ListDatasetsRequest(parent="projects/other"))
    with pytest.raises(PermissionDenied):
        authorize_more(platform_owner("k"), "projects/acme", ListDatasetsRequest(parent="projects/other"))


def test_a_rejection_does_not_reveal_what_exists():
    """Two things of another project, one of which exists, get the same words but for the name that was asked for."""
    words = []
    for name in ("projects/other/datasets/real", "projects/other/datasets/unreal"):
        with pytest.raises(PermissionDenied) as caught:
            authorize(a_member(), rpc_of(GetDatasetRequest()), GetDatasetRequest(name=name))
        words.append((caught.value.message, caught.value.metadata))

    assert words[0] == words[1]


@given(st.text(max_size=40))
def test_every_reference_below_another_project_is_rejected(text):
    request = CreateSourceRequest(parent="projects/acme", source=Source(dataset=f"projects/other/{text}"))

    assert "projects/other" in projects_in(request)
