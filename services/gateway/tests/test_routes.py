"""Routes: every HTTP rule of the contracts finds its own RPC, and a conflict is found at the start."""

import pytest
from vesta_gateway.contracts.methods import all_rpcs
from vesta_gateway.contracts.path_template import ANY_SEGMENT
from vesta_gateway.rest.routes import Routes


def test_every_http_rule_is_routed_to_its_own_rpc():
    routes = Routes(all_rpcs())
    for rpc in all_rpcs():
        for rule in rpc.rules:
            path = "/" + "/".join("x" if segment == ANY_SEGMENT else segment for segment in rule.template.segments)
            found = routes.find(rule.verb, path + (f":{rule.template.verb}" if rule.template.verb else ""))
            assert found is not None
            assert found.rpc.full_name == rpc.full_name


def test_a_path_without_a_route_has_no_verbs():
    routes = Routes(all_rpcs())

    assert routes.find("GET", "/v1/nothing") is None
    assert routes.verbs_of("/v1/nothing") == []


def test_the_error_of_a_wrong_verb_lists_the_allowed_ones():
    routes = Routes(all_rpcs())

    assert routes.find("PUT", "/v1/projects/a/datasets/d") is None
    assert routes.verbs_of("/v1/projects/a/datasets/d") == ["DELETE", "GET", "PATCH"]


def test_conflicting_http_rules_are_rejected():
    rpcs = all_rpcs()
    twin = type(rpcs[0])(rpcs[0].descriptor)
    twin.__dict__["full_name"] = "vesta.other.v1.OtherService.Twin"

    with pytest.raises(ValueError, match="same HTTP rule"):
        Routes([*rpcs, twin])


def test_every_rpc_except_internal_ones_is_available_over_http():
    assert [rpc.full_name for rpc in all_rpcs() if not rpc.rules] == ["vesta.connection.v1.MediaService.IngestMedia"]
