"""Standard methods for any resource by its name, derived from the contracts, for `vesta get`, `list`, `create`, `update` and `delete`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import grpc
from google.api import resource_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from vesta_contracts.annotation import v1 as _annotation
from vesta_contracts.conductor import v1 as _conductor
from vesta_contracts.connection import v1 as _connection
from vesta_contracts.datasets import v1 as _datasets
from vesta_contracts.gateway import v1 as _gateway
from vesta_contracts.pipelining import v1 as _pipelining
from vesta_contracts.serving import v1 as _serving
from vesta_contracts.training import v1 as _training

VERBS = ("get", "list", "create", "update", "delete")
_CONTRACTS = (_annotation, _conductor, _connection, _datasets, _gateway, _pipelining, _serving, _training)


@dataclass(frozen=True)
class ResourceType:
    """A kind of resource: its message, its name pattern and the methods of its service."""

    message: Descriptor
    pattern: str
    plural: str
    singular: str
    methods: dict[str, MethodDescriptor]

    @property
    def field(self) -> str:
        """The name of its field in requests: `training_run`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", str(self.message.name)).lower()

    def matches(self, name: str) -> bool:
        """Whether `name` is a name of this kind."""
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", self.pattern), name) is not None

    def matches_collection(self, collection: str) -> bool:
        """Whether `collection` is a collection of this kind, such as `projects/acme/datasets`."""
        return self.matches(collection + "/x")


@cache
def resource_types() -> tuple[ResourceType, ...]:
    """Returns all kinds of resources in the contracts, in order of pattern."""
    messages = [message for contract in _CONTRACTS for message in _messages(contract)]
    methods = {method.name: method for contract in _CONTRACTS for method in _methods(contract)}
    kinds = []
    for message in messages:
        resource = message.GetOptions().Extensions[resource_pb2.resource]
        if not resource.type:
            continue
        stem = message.name.removesuffix(resource.singular[0].upper() + resource.singular[1:])
        plural = stem + resource.plural[0].upper() + resource.plural[1:]
        names = {verb: f"{verb.capitalize()}{plural if verb == 'list' else message.name}" for verb in VERBS}
        known = {verb: methods[name] for verb, name in names.items() if name in methods}
        kinds.append(ResourceType(message, resource.pattern[0], resource.plural, resource.singular, known))
    return tuple(sorted(kinds, key=lambda kind: kind.pattern))


def _messages(contract: ModuleType) -> Iterator[Descriptor]:
    """Returns the messages of the package of a service."""
    for name in contract.__all__:
        descriptor = getattr(getattr(contract, name), "DESCRIPTOR", None)
        if isinstance(descriptor, Descriptor):
            yield descriptor


def _methods(contract: ModuleType) -> Iterator[MethodDescriptor]:
    """Returns the methods of all gRPC services in the package of a service."""
    package = next(_messages(contract)).file.package
    for name in contract.__all__:
        if name.endswith("Stub"):
            service = descriptor_pool.Default().FindServiceByName(f"{package}.{name.removesuffix('Stub')}")
            yield from service.methods


def type_of(name: str) -> ResourceType:
    """Returns the kind of a resource by its name.

    Raises:
        ValueError: no kind has this name; the message lists the patterns.
    """
    for kind in resource_types():
        if kind.matches(name):
            return kind
    raise ValueError(f"{name!r} does not match any resource name pattern; patterns:\n" + _patterns())


def type_of_collection(collection: str) -> ResourceType:
    """Returns the kind of the resources in a collection such as `projects/acme/datasets`.

    Raises:
        ValueError: the collection is unknown; the message lists the patterns.
    """
    for kind in resource_types():
        if kind.matches_collection(collection):
            return kind
    raise ValueError(f"unknown collection {collection!r}; name patterns:\n" + _patterns())


def can_filter(kind: ResourceType) -> bool:
    """Whether lists of this kind accept a filter."""
    return "list" in kind.methods and "filter" in kind.methods["list"].input_type.fields_by_name


def _patterns() -> str:
    return "\n".join(f"  {kind.pattern}" for kind in resource_types())


def request_for(method: MethodDescriptor, **fields: Any) -> Any:
    """Returns a request of the method with these fields; fields that are None are omitted."""
    request = message_factory.GetMessageClass(method.input_type)
    return request(**{name: value for name, value in fields.items() if value is not None})


def call(channel: grpc.Channel, method: MethodDescriptor, request: Any) -> Any:
    """Calls a unary method by its descriptor."""
    response = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    invoke: Any = channel.unary_unary(
        path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=response.FromString
    )
    return invoke(request)
