"""Pages, masks, etags, names and the rules on fields: what every service checks of a request."""

import cProfile

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import Aborted, InvalidArgument
from vesta_common.ids import deterministic_id, new_id
from vesta_common.resources.etags import check_etag, etag_of
from vesta_common.resources.masks import apply_update
from vesta_common.resources.names import ResourcePattern, check_name, parent_of, project_of
from vesta_common.resources.pages import read_page
from vesta_common.rpc.validation import validate
from vesta_contracts import everything
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CreateCampaignRequest,
    LeasePurpose,
    LeaseTasksRequest,
    ListReviewsRequest,
    ListTasksRequest,
    Task,
    UpdateCampaignRequest,
)
from vesta_contracts.common.v1 import Annotation, PixelBox, Provenance, rules
from vesta_contracts.conductor.v1 import LoopPolicy
from vesta_contracts.connection.v1 import UploadItemRequest
from vesta_contracts.datasets.v1 import ListItemsRequest

PARENT = "projects/acme/campaigns/vans"


@given(count=st.integers(0, 30), size=st.integers(1, 7))
def test_pages_give_every_row_once_in_order(count: int, size: int) -> None:
    rows = [f"{index:03d}" for index in range(count)]
    seen: list[str] = []
    request = ListTasksRequest(parent=PARENT, page_size=size)
    while True:
        page = read_page(request)
        after = page.cursor[0] if page.cursor else ""
        kept, token = page.cut([row for row in rows if row > after][: page.limit], lambda row: (row,))
        assert len(kept) <= size
        seen += kept
        if not token:
            break
        request.page_token = token
    assert seen == rows


@pytest.mark.parametrize("token", ["x", "%%%", "WyJub25zZW5zZSJd", "bnVsbA", "W1tb" * 1000])
def test_a_foreign_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_page(ListTasksRequest(parent=PARENT, page_token=token))
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


def test_a_page_token_of_another_filter_is_refused() -> None:
    request = ListItemsRequest(parent="projects/acme/datasets/vans", page_size=1)
    _, token = read_page(request).cut(["a", "b"], lambda row: (row,))
    request.page_token, request.filter = token, "labelled"
    with pytest.raises(InvalidArgument, match="another"):
        read_page(request)


def test_a_page_token_of_another_list_is_refused() -> None:
    _, token = read_page(ListTasksRequest(parent=PARENT, page_size=1)).cut(["a", "b"], lambda row: (row,))
    with pytest.raises(InvalidArgument, match="another"):
        read_page(ListReviewsRequest(parent=PARENT, page_token=token))


def test_a_mask_changes_what_it_names_and_nothing_else() -> None:
    current = Campaign(name=PARENT, display_name="old", instructions="keep", concepts=["a"])
    wanted = Campaign(display_name="new", concepts=["b", "c"])
    updated = apply_update(
        current, wanted, FieldMask(paths=["display_name", "concepts"]), ("display_name", "concepts", "instructions")
    )
    assert (updated.display_name, list(updated.concepts), updated.instructions) == ("new", ["b", "c"], "keep")
    assert current.display_name == "old"


def test_a_mask_clears_what_the_update_leaves_out() -> None:
    current = Annotation(score=0.5, attributes={"occluded": "true"}, box=PixelBox(x_max_px=1))
    mutable = ("score", "attributes", "box")
    updated = apply_update(current, Annotation(), FieldMask(paths=list(mutable)), mutable)
    assert updated == Annotation()
    assert not updated.HasField("score")


def test_an_empty_mask_changes_what_is_set_and_a_star_everything() -> None:
    current = Campaign(display_name="old", instructions="old")
    mutable = ("display_name", "instructions")
    assert apply_update(current, Campaign(display_name="new"), FieldMask(), mutable).instructions == "old"
    assert apply_update(current, Campaign(display_name="new"), FieldMask(paths=["*"]), mutable).instructions == ""


@pytest.mark.parametrize("path", ["dataset", "nonsense"])
def test_a_field_that_cannot_change_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        apply_update(Campaign(), Campaign(), FieldMask(paths=[path]), ("display_name",))
    assert refused.value.reason == "FIELD_IMMUTABLE"


def test_a_stale_etag_is_aborted_and_an_empty_or_current_one_is_not() -> None:
    current = Campaign(name=PARENT, display_name="now")
    check_etag("", current)
    check_etag(etag_of(current), current)
    with pytest.raises(Aborted) as refused:
        check_etag(etag_of(Campaign(name=PARENT, display_name="before")), current)
    assert refused.value.reason == "ETAG_STALE"


def test_names_are_taken_apart_and_put_together() -> None:
    pattern = ResourcePattern("projects/{project}/campaigns/{campaign}")
    assert pattern.parse(pattern.format(project="acme", campaign="vans")) == {"project": "acme", "campaign": "vans"}
    assert (parent_of(PARENT), project_of(PARENT)) == ("projects/acme", "projects/acme")


@pytest.mark.parametrize(
    "name", ["", "projects/", "projects/acme/campaigns/", "projects/acme/campaigns/A", "x/acme/campaigns/vans"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ResourcePattern("projects/{project}/campaigns/{campaign}").parse(name)
    assert refused.value.reason == "INVALID_NAME"


@pytest.mark.parametrize(
    ("name", "position", "shown"),
    [
        ("projects/Ò", "2", r"'\xd2'"),
        ("projects/a\nb", "2", r"'a\nb'"),
        ("projects/\x00", "2", r"'\x00'"),
        ("projects/Acme", "2", "'Acme'"),
        ("projects/acme-", "2", "'acme-'"),
        ("projects/" + "a" * 64, "2", f"'{'a' * 64}'"),
        ("Projects/acme", "1", "'Projects'"),
        ("projects/acme/", "3", "''"),
        ("projects/acme/datasets/", "4", "''"),
        ("/projects/acme", "1", "''"),
    ],
)
def test_a_name_that_is_not_well_formed_is_refused_with_its_segment(name: str, position: str, shown: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name(name, "parent")
    assert refused.value.reason == "INVALID_NAME"
    assert refused.value.metadata == {"segment": shown, "position": position}
    assert shown in refused.value.message
    assert [violation.field for violation in refused.value.violations] == ["parent"]


def test_what_a_refusal_shows_of_a_name_is_cut() -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name("projects/" + "Ò" * 100_000)
    assert len(refused.value.message) < 1_000


@given(st.text(max_size=80))
def test_a_name_that_passes_can_travel_in_grpc_metadata(name: str) -> None:
    try:
        check_name(name)
    except InvalidArgument:
        return
    assert name.isascii()
    assert name.isprintable()


def id_patterns() -> list[str]:
    """The patterns of the ids that creates accept."""
    pool = descriptor_pool.Default()
    found = set()
    for file in everything.FILES:
        for message in pool.FindFileByName(file).message_types_by_name.values():
            for field in message.fields:
                if message.name.startswith("Create") and field.name.endswith("_id") and field.name != "request_id":
                    found.add(field.GetOptions().Extensions[rules].pattern)
    return sorted(found)


@given(st.data())
def test_every_id_that_a_create_accepts_makes_a_name(data: st.DataObject) -> None:
    patterns = id_patterns()
    assert patterns
    assert "" not in patterns
    for pattern in patterns:
        check_name(f"projects/{data.draw(st.from_regex(pattern, fullmatch=True))}")


def test_every_id_that_the_platform_makes_makes_a_name() -> None:
    for made in (new_id(), deterministic_id("x"), "1", "20"):
        check_name(f"projects/acme/trainingRuns/{made}")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (LeaseTasksRequest(parent=PARENT), "purpose"),
        (LeaseTasksRequest(parent="nonsense", purpose=LeasePurpose.LEASE_PURPOSE_REVIEW), "parent"),
        (LeaseTasksRequest(parent=PARENT, purpose=LeasePurpose.LEASE_PURPOSE_REVIEW, count=101), "count"),
        (LeaseTasksRequest(parent=PARENT, purpose=77), "purpose"),
        (BatchCreateTasksRequest(parent=PARENT), "tasks"),
        (BatchCreateTasksRequest(parent=PARENT, tasks=[Task()]), "tasks[0].item"),
        (CreateCampaignRequest(parent="projects/acme"), "campaign"),
        (
            CreateCampaignRequest(
                parent="projects/acme", campaign_id="Nope!", campaign=Campaign(dataset="projects/a/datasets/b")
            ),
            "campaign_id",
        ),
        (
            CreateCampaignRequest(parent="projects/acme", campaign=Campaign(display_name="a\0b")),
            "campaign.display_name",
        ),
        (UpdateCampaignRequest(campaign=Campaign(display_name="nameless")), "campaign.name"),
        (UpdateCampaignRequest(campaign=Campaign(name="projects/acme/loops/vans")), "campaign.name"),
        (Annotation(concept="x", attributes={"a\0b": "c"}), "attributes"),
        (Annotation(concept="x", attributes={"a": "b\0c"}), "attributes[a]"),
        (Annotation(concept="x", attributes={"a" * 201: "b"}), "attributes"),
        (Provenance(taken_time=Timestamp(seconds=10**15)), "taken_time"),
        (LoopPolicy(dataset="projects/acme/datasets/vans", control_share=float("nan")), "control_share"),
        (Campaign(lease_duration=Duration(seconds=60, nanos=1_500_000_000)), "lease_duration"),
        (Campaign(lease_duration=Duration(seconds=60, nanos=-1)), "lease_duration"),
    ],
)
def test_a_broken_rule_names_its_field(message: object, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(message)  # type: ignore[arg-type]
    assert refused.value.reason == "FIELD_INVALID"
    assert field in [violation.field for violation in refused.value.violations]


def test_an_update_may_leave_out_all_but_the_name() -> None:
    validate(UpdateCampaignRequest(campaign=Campaign(name=PARENT)))


def test_checking_a_message_does_not_look_at_each_of_its_bytes() -> None:
    def calls(size_bytes: int) -> int:
        file = HttpBody(data=bytes(size_bytes))
        request = UploadItemRequest(parent="projects/acme/sources/desk", file_name="van.jpg", file=file)
        validate(request)  # compiles the checks
        profile = cProfile.Profile()
        profile.runcall(validate, request)
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(100_000) < calls(1) + 1_000  # not equal, for the garbage collector may call something in between


def test_a_request_that_keeps_its_rules_passes() -> None:
    validate(LeaseTasksRequest(parent=PARENT, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE, count=20))
