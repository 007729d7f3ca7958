"""A call is taken by its token alone: from a service of this platform, for this service, now, with a role that it may assert."""

import base64
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from vesta_admin.authority import AUTHORITY_LIFETIME, LIFETIME, KeyPair, issue, needs_renewal, new_authority
from vesta_common.errors import PermissionDenied, Unauthenticated
from vesta_common.identity import PEERS, TOKEN_KEY, CredentialFiles, CredentialsError, Identity, audience_of, tokens
from vesta_common.identity.callers import check_call, check_project
from vesta_common.identity.credentials import LOOK_SECONDS, Credentials, CredentialSource, read_credentials
from vesta_common.settings import ServiceSettings
from vesta_contracts.datasets.v1 import GetItemRequest, ListItemsRequest
from vesta_local.testing import identity_files, identity_of, identity_settings

ADA = "projects/acme/members/ada"


@cache
def now() -> float:
    """The time of these tests. The certificates of the session are issued first, because they are not valid before that."""
    identity_of("gateway")
    return float(int(time.time()))


def written(folder: Path, service: str, authority: KeyPair, moment: datetime | None = None) -> CredentialFiles:
    folder.mkdir(exist_ok=True)
    files = CredentialFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    pair = issue(authority, service, ["localhost"], moment or datetime.now(UTC))
    files.certificate.write_bytes(pair.certificate)
    files.key.write_bytes(pair.key)
    files.authorities.write_bytes(authority.certificate)
    return files


def signed(by: Credentials, **changes: Any) -> str:
    """A token as `by` could make it, had its code been changed."""
    stated = {"iss": by.service, "aud": "datasets", "sub": ADA, "role": "owner", "project": "projects/acme"}
    stated |= {"iat": int(now()), "exp": int(now()) + 120, **changes}
    certificate = base64.b64encode(by.certificate.public_bytes(Encoding.DER)).decode()
    claims = {name: value for name, value in stated.items() if value is not None}
    return jwt.encode(claims, by.key, tokens.ALGORITHM, headers={"x5c": [certificate]})


def test_the_receiver_learns_who_calls_on_whose_behalf() -> None:
    metadata = dict([identity_of("gateway").metadata("datasets", ADA, "engineer")])
    claims = identity_of("datasets").verify(metadata, "datasets")
    assert (claims.service, claims.caller, claims.role, claims.project) == ("gateway", ADA, "engineer", "projects/acme")


def test_a_service_calls_in_its_own_name_where_no_member_stands_behind_it() -> None:
    claims = identity_of("datasets").verify(dict([identity_of("serving").metadata("datasets")]), "datasets")
    assert (claims.caller, claims.role, claims.project) == ("services/serving", "", "")


def test_a_role_that_a_service_may_not_assert_is_not_passed_on() -> None:
    datasets, training, annotation = (identity_of(word) for word in ("datasets", "training", "annotation"))
    assert datasets.verify(dict([training.metadata("datasets", ADA, "owner")]), "datasets").role == ""
    assert datasets.verify(dict([annotation.metadata("datasets", ADA, "annotator")]), "datasets").role == "annotator"


def test_a_token_is_used_again_for_half_of_its_life() -> None:
    moment = [now()]
    gateway = Identity(identity_files("gateway"), lambda: moment[0])
    first = gateway.metadata("datasets", ADA, "owner")
    moment[0] += 59
    assert gateway.metadata("datasets", ADA, "owner") == first
    assert gateway.metadata("serving", ADA, "owner") != first
    moment[0] += 2
    assert gateway.metadata("datasets", ADA, "owner") != first


def test_a_token_that_was_verified_still_ends() -> None:
    moment = [now()]
    metadata = dict([Identity(identity_files("gateway"), lambda: moment[0]).metadata("datasets")])
    datasets = Identity(identity_files("datasets"), lambda: moment[0])
    datasets.verify(metadata, "datasets")
    moment[0] += 149
    datasets.verify(metadata, "datasets")
    with pytest.raises(Unauthenticated, match=r"[Aa]udience"):
        datasets.verify(metadata, "serving")
    moment[0] += 2
    with pytest.raises(Unauthenticated, match="expired"):
        datasets.verify(metadata, "datasets")


# Times are in seconds from `now`.
BAD_CLAIMS = [
    ({"aud": "serving"}, "[Aa]udience"),
    ({"aud": ["datasets", "serving"]}, "strict"),
    ({"aud": None}, "aud"),
    ({"iss": "gateway"}, "issuer does not match"),
    ({"role": None}, "role"),
    ({"role": 7}, "inconsistent"),
    ({"project": "projects/other"}, "inconsistent"),
    ({"exp": 3600}, "longer than 120 s"),
    ({"iat": -300, "exp": -180}, "expired 180 s ago"),
    ({"iat": 300, "exp": 400}, "valid only in 300 s"),
    ({"exp": "never"}, "invalid"),
]


@pytest.mark.parametrize(("changes", "why"), BAD_CLAIMS, ids=[why for _, why in BAD_CLAIMS])
def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any], why: str) -> None:
    times = {name: int(now()) + value for name, value in changes.items() if name in ("iat", "exp") and value != "never"}
    token = signed(identity_of("training").credentials, **changes | times)
    with pytest.raises(Unauthenticated, match=why) as refused:
        Identity(identity_files("datasets"), now).verify({TOKEN_KEY: f"Bearer {token}"}, "datasets")
    assert refused.value.reason == "TOKEN_INVALID"


def unsigned(by: Credentials) -> str:
    _, claims, _ = signed(by).split(".")
    return f"{jwt.encode({}, None, 'none').split('.')[0]}.{claims}."


def of_another_key(by: Credentials) -> str:
    header, claims, _ = signed(by).split(".")
    return f"{header}.{claims}.{signed(identity_of('serving').credentials).split('.')[2]}"


def without_certificate(by: Credentials) -> str:
    return jwt.encode({"iss": by.service, "aud": "datasets"}, by.key, tokens.ALGORITHM)


FORGERIES: list[Callable[[Credentials], str]] = [
    unsigned,
    of_another_key,
    without_certificate,
    lambda _: "nonsense",
    lambda _: "a" * 5000,
    lambda _: jwt.encode({"iss": "gateway", "aud": "datasets"}, "s" * 32, "HS256"),
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_what_no_key_of_a_service_signed_is_refused(forge: Callable[[Credentials], str]) -> None:
    token = forge(identity_of("gateway").credentials)
    with pytest.raises(Unauthenticated) as refused:
        identity_of("datasets").verify({TOKEN_KEY: f"Bearer {token}"}, "datasets")
    assert refused.value.reason == "TOKEN_INVALID"


@pytest.mark.parametrize("header", ["", "Basic dmVzdGE6dmVzdGE=", "Bearer"])
def test_a_call_without_a_token_is_refused(header: str) -> None:
    forged = {"x-vesta-role": "owner", "x-vesta-caller": ADA, "x-vesta-service": "gateway", TOKEN_KEY: header}
    with pytest.raises(Unauthenticated, match="gateway") as refused:
        identity_of("datasets").verify(forged, "datasets")
    assert refused.value.reason == "TOKEN_MISSING"


def test_a_certificate_of_a_foreign_authority_is_refused_though_it_names_the_gateway(tmp_path: Path) -> None:
    stranger = Identity(written(tmp_path / "stranger", "gateway", new_authority(datetime.now(UTC))))
    with pytest.raises(Unauthenticated, match="expired, or not issued by this platform"):
        identity_of("datasets").verify(dict([stranger.metadata("datasets", ADA, "owner")]), "datasets")


def test_a_certificate_that_has_ended_is_refused(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=100)
    authority = new_authority(long_ago)
    late = Identity(written(tmp_path / "late", "gateway", authority, long_ago))
    datasets = Identity(written(tmp_path / "datasets", "datasets", authority))
    with pytest.raises(Unauthenticated, match="expired"):
        datasets.verify(dict([late.metadata("datasets")]), "datasets")


def test_a_service_cannot_issue_certificates(tmp_path: Path) -> None:
    training = identity_of("training").credentials
    as_authority = KeyPair(training.certificate_pem, training.key_pem)
    files = written(tmp_path / "made-up", "gateway", as_authority)
    with pytest.raises(Unauthenticated, match="expired, or not issued by this platform"):
        identity_of("datasets").verify(dict([Identity(files).metadata("datasets")]), "datasets")


@pytest.mark.parametrize(
    ("service", "audience"), [("serving", "annotation"), ("annotation", "gateway"), ("cron", "datasets")]
)
def test_only_the_callers_of_a_service_may_call_it(service: str, audience: str) -> None:
    with pytest.raises(PermissionDenied, match=service) as refused:
        check_call(service, audience, "")
    assert refused.value.reason == "CALLER_NOT_ALLOWED"


@pytest.mark.parametrize("service", sorted(PEERS.keys() - {"gateway", "conductor"}))
def test_only_the_gateway_and_the_conductor_may_assert_a_role_that_grants_something(service: str) -> None:
    for role in ("owner", "engineer", "reviewer", "viewer"):
        with pytest.raises(PermissionDenied, match="gateway") as refused:
            check_call(service, PEERS[service][0], role)
        assert refused.value.reason == "ROLE_NOT_ALLOWED"
    check_call(service, PEERS[service][0], "annotator")
    check_call("conductor", "annotation", "owner")


@pytest.mark.parametrize(
    "request_",
    [GetItemRequest(name="projects/acmes/datasets/d/items/i"), ListItemsRequest(parent="projects/b/datasets/d")],
)
def test_a_token_for_one_project_opens_no_other(request_: Any) -> None:
    with pytest.raises(PermissionDenied, match="projects/acme,") as refused:
        check_project("projects/acme", request_)
    assert refused.value.reason == "PROJECT_NOT_ALLOWED"
    check_project("", request_)
    check_project("projects/acme", GetItemRequest(name="projects/acme/datasets/d/items/i"))


def test_the_audience_is_the_service_that_a_method_belongs_to() -> None:
    assert audience_of("/vesta.datasets.v1.ItemService/GetItem") == "datasets"
    assert audience_of("/grpc.health.v1.Health/Check") == ""


def test_renewed_files_are_read_again_and_broken_ones_are_not_used(tmp_path: Path) -> None:
    moment = [0.0]
    authority = new_authority(datetime.now(UTC))
    files = written(tmp_path / "own", "datasets", authority)
    source = CredentialSource(files, lambda: moment[0])
    first = source.current()
    written(tmp_path / "own", "datasets", authority)
    assert source.current() is first
    moment[0] += LOOK_SECONDS
    second = source.current()
    assert second.certificate != first.certificate
    files.key.write_bytes(first.key_pem)
    moment[0] += LOOK_SECONDS
    assert source.current() is second


def test_tokens_of_before_and_after_a_renewal_are_both_taken(tmp_path: Path) -> None:
    authority = new_authority(datetime.now(UTC))
    old = Identity(written(tmp_path / "old", "gateway", authority))
    new = Identity(written(tmp_path / "new", "gateway", authority))
    datasets = Identity(written(tmp_path / "datasets", "datasets", authority))
    for gateway in (old, new):
        assert datasets.verify(dict([gateway.metadata("datasets")]), "datasets").service == "gateway"


def test_files_that_cannot_be_used_are_named_with_what_would_work(tmp_path: Path) -> None:
    own = identity_files("datasets")
    with pytest.raises(CredentialsError, match=r"absent.*vesta-admin certificates"):
        read_credentials(CredentialFiles(tmp_path / "absent", own.key, own.authorities))
    with pytest.raises(CredentialsError, match="does not match"):
        read_credentials(CredentialFiles(own.certificate, identity_files("serving").key, own.authorities))
    with pytest.raises(CredentialsError, match="has no service name"):
        read_credentials(CredentialFiles(own.authorities, own.authorities.with_suffix(".key"), own.authorities))
    shutil.copy(own.key, tmp_path / "not-a-certificate")
    with pytest.raises(CredentialsError, match="must be PEM"):
        read_credentials(CredentialFiles(tmp_path / "not-a-certificate", own.key, own.authorities))


def test_a_service_takes_its_own_certificate_alone_and_says_which_setting_is_missing() -> None:
    given = {"postgres_url": "postgresql://unused"}
    with pytest.raises(CredentialsError, match="IDENTITY_CERTIFICATE_FILE, IDENTITY_KEY_FILE, IDENTITY_CA_FILE"):
        Identity.of(ServiceSettings(**given), "datasets")
    with pytest.raises(CredentialsError, match="configure that of datasets"):
        Identity.of(ServiceSettings(**given, **identity_settings("serving")), "datasets")


def test_a_certificate_is_renewed_a_month_after_it_was_issued() -> None:
    now = datetime.now(UTC)
    pair = issue(new_authority(now), "datasets", ["datasets"], now)
    assert not needs_renewal(pair, now + timedelta(days=29))
    assert needs_renewal(pair, now + timedelta(days=31))
    assert now + LIFETIME < now + AUTHORITY_LIFETIME
