"""Routes HTTP requests to RPCs by verb, number of segments and custom verb."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vesta_gateway.contracts.methods import HttpRule, Rpc, is_upload
from vesta_gateway.contracts.path_template import ANY_SEGMENT, ANY_SUFFIX, split_path

_ANY_LENGTH = -1


@dataclass(frozen=True)
class Match:
    """The RPC of a request. `captured` contains the fields from the path."""

    rpc: Rpc
    rule: HttpRule
    captured: dict[str, str]


class Routes:
    """The routing table.

    Raises:
        ValueError: two RPCs have the same binding, or an RPC cannot be served over HTTP.
    """

    def __init__(self, rpcs: Sequence[Rpc]) -> None:
        self._buckets: dict[tuple[int, str], list[tuple[Rpc, HttpRule]]] = defaultdict(list)
        seen: dict[tuple[str, tuple[str, ...], str], str] = {}
        for rpc in rpcs:
            for rule in rpc.rules:
                template = rule.template
                if rpc.descriptor.client_streaming and not is_upload(rpc, rule):
                    raise ValueError(
                        f"{rpc.full_name} has a client stream of messages, which HTTP does not support; only "
                        "streams of bytes are supported"
                    )
                other = seen.setdefault((rule.verb, template.segments, template.verb), rpc.full_name)
                if other != rpc.full_name:
                    raise ValueError(f"{rpc.full_name} and {other} have the same HTTP rule")
                length = _ANY_LENGTH if template.segments[-1] == ANY_SUFFIX else len(template.segments)
                self._buckets[length, template.verb].append((rpc, rule))
        for bucket in self._buckets.values():
            bucket.sort(
                key=lambda entry: sum(segment in {ANY_SEGMENT, ANY_SUFFIX} for segment in entry[1].template.segments)
            )

    def find(self, verb: str, raw_path: str) -> Match | None:
        """Finds the RPC of a request by its raw path; None if there is none."""
        segments, custom_verb = split_path(raw_path)
        for length in (len(segments), _ANY_LENGTH):
            for rpc, rule in self._buckets.get((length, custom_verb), ()):
                if rule.verb == verb:
                    captured = rule.template.match(segments, custom_verb)
                    if captured is not None:
                        return Match(rpc, rule, captured)
        return None

    def verbs_of(self, raw_path: str) -> list[str]:
        """Returns the allowed verbs of a path."""
        segments, custom_verb = split_path(raw_path)
        return sorted(
            {
                rule.verb
                for length in (len(segments), _ANY_LENGTH)
                for _, rule in self._buckets.get((length, custom_verb), ())
                if rule.template.match(segments, custom_verb) is not None
            }
        )
