"""Random requests by the gateway's own OpenAPI document: no answer is a mistake of ours, and each keeps its schema."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from ground import Effort, Ground
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks
from vesta_gateway.contracts.methods import all_rpcs
from vesta_gateway.openapi.document import comments, describe

pytestmark = [pytest.mark.platform, pytest.mark.no_events, pytest.mark.timeout(7200)]

DEADLINE_SECONDS = 30.0
REAL_OF_TEN = 7
EVENT_STREAM = "text/event-stream"  # never ends; random messages go to it over gRPC
OPERATIONS = sorted(
    (path, verb)
    for path, operations in describe(all_rpcs(), comments())["paths"].items()
    for verb, operation in operations.items()
    if EVENT_STREAM not in operation["responses"]["200"]["content"]
)
# What is refused with 503 for a good reason.
EXPECTED = {"DEPLOYMENT_NOT_READY"}
MISTAKES_FROM = 500
CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(ground: Ground) -> Any:
    """The document as the running gateway serves it."""
    return schemathesis.openapi.from_dict(httpx.get(f"{ground.rest}/openapi.json").raise_for_status().json())


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        yield found


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "verb"), OPERATIONS, ids=lambda value: value)
def test_random_requests_are_answered_by_the_document(
    ground: Ground, effort: Effort, api: Any, session: requests.Session, path: str, verb: str, mode: GenerationMode
) -> None:
    operation = api[path][verb.upper()]
    ids = _ids(ground)

    @seed(effort.seed)
    @settings(
        max_examples=max(1, effort.cases // len(OPERATIONS) // 2),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data(), case=operation.as_strategy(generation_mode=mode))
    def run(data: st.DataObject, case: Any) -> None:
        for name in _replaceable(path, verb):
            if name in ids and data.draw(st.integers(0, 9)) < REAL_OF_TEN:
                case.path_parameters[name] = data.draw(st.sampled_from(ids[name]))
        headers = {"authorization": f"Bearer {ground.owner_key}"}
        answer = case.call(base_url=ground.rest, session=session, headers=headers, timeout=DEADLINE_SECONDS)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code < MISTAKES_FROM or _reason(answer) in EXPECTED, _told(case, answer)

    run()


def _ids(ground: Ground) -> dict[str, list[str]]:
    """The ids of what exists by the path's parameter, such as `dataset`."""
    found: dict[str, set[str]] = {}
    for kind, names in ground.existing.items():
        word = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.removeprefix("vesta/")).lower()
        found[word] = {name.rpartition("/")[2] for name in names}
    return {word: sorted(ids) for word, ids in found.items()}


def _replaceable(path: str, verb: str) -> list[str]:
    """The parameters of a path that may name what exists. What is deleted would be missed by other cases."""
    names = re.findall(r"{(\w+)}", path)
    return names[:-1] if verb == "delete" else names


def _reason(answer: Any) -> str:
    return str(answer.json()["error"]["details"][0].get("reason", ""))


def _told(case: Any, answer: Any) -> str:
    return f"{answer.status_code} {answer.text[:1000]} to {case.as_curl_command()[:4000]}"
