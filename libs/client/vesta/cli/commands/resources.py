"""Commands for the standard methods of all resources: get, list, create, update, delete."""

import json
from typing import Any

import click
from google.protobuf import field_mask_pb2, json_format, message_factory

from vesta import resources
from vesta.cli.fields import mask_of, read_fields
from vesta.cli.render import OUTPUTS, Output, show, show_all
from vesta.cli.session import Session, limit_option, pass_session


@click.command("get")
@click.argument("name")
@pass_session
def get_resource(session: Session, name: str) -> None:
    """Show one resource, such as projects/acme/datasets/vans."""
    method = _method(resources.type_of(name), "get")
    show(
        resources.call(session.client.channel, method, resources.request_for(method, name=name)),
        json_output=session.json_output,
    )


@click.command("list")
@click.argument("collection")
@click.option("--filter", "filter_", help="An AIP-160 filter, such as 'split = TEST AND NOT labelled'.")
@limit_option
@click.option("-o", "--output", type=click.Choice(OUTPUTS), help="The output format; a table by default.")
@pass_session
def list_resources(session: Session, collection: str, filter_: str | None, limit: int, output: Output | None) -> None:
    """List a collection, such as projects, or projects/acme/datasets."""
    kind = resources.type_of_collection(collection)
    method = _method(kind, "list")
    if filter_ and not resources.can_filter(kind):
        filterable = sorted({other.plural for other in resources.resource_types() if resources.can_filter(other)})
        raise ValueError(f"{kind.plural} cannot be filtered; omit --filter, or list one of: {', '.join(filterable)}")
    parent = collection.rpartition("/")[0] or None
    request = resources.request_for(method, parent=parent, filter=filter_, page_size=min(limit, 1000))
    listed = session.client.pages(lambda page: resources.call(session.client.channel, method, page), request)
    show_all((resource for resource, _ in zip(listed, range(limit), strict=False)), output or session.output)


@click.command("create")
@click.argument("name")
@click.argument("fields", nargs=-1)
@click.option("--body", help="The resource as JSON; FIELDS override it.")
@pass_session
def create_resource(session: Session, name: str, fields: tuple[str, ...], body: str | None) -> None:
    """Create a resource with a name, or in a collection with a generated id.

    FIELDS are key=value, nested by dots: vesta create projects/acme/members/ada role=ROLE_ANNOTATOR. A value that is
    valid JSON is parsed as JSON, unless the field is a string.
    """
    is_collection = len(name.split("/")) % 2 == 1
    collection, last = (name, "") if is_collection else name.rpartition("/")[::2]
    kind = resources.type_of_collection(collection)
    method = _method(kind, "create")
    known = method.input_type.fields_by_name
    id_field = f"{kind.field}_id"
    if last and id_field not in known:
        raise ValueError(f"the server generates the ids of {kind.plural}; create one with: vesta create {collection}")
    request = resources.request_for(
        method,
        **{kind.field: _message(kind, read_fields(kind.message, fields, body))},
        parent=collection.rpartition("/")[0] or None if "parent" in known else None,
        **({id_field: last} if last else {}),
    )
    show(resources.call(session.client.channel, method, request), json_output=session.json_output)


@click.command("update")
@click.argument("name")
@click.argument("fields", nargs=-1)
@click.option("--body", help="The fields to update as JSON; FIELDS override it.")
@pass_session
def update_resource(session: Session, name: str, fields: tuple[str, ...], body: str | None) -> None:
    """Update the given FIELDS of a resource.

    FIELDS are key=value, as for create; null clears a field: vesta update projects/acme/loops/vans paused=true.
    """
    kind = resources.type_of(name)
    get, method = _method(kind, "get"), _method(kind, "update")
    given = read_fields(kind.message, fields, body)
    message = _message(kind, given)
    mask = field_mask_pb2.FieldMask(paths=mask_of(kind.message, given))
    if not mask.paths:
        raise ValueError("no fields to update; set some, such as displayName=Vans")
    message.name = name
    if "etag" in kind.message.fields_by_name and not message.etag:  # so that a concurrent update is not overwritten
        message.etag = resources.call(session.client.channel, get, resources.request_for(get, name=name)).etag
    request = resources.request_for(method, **{kind.field: message}, update_mask=mask)
    show(resources.call(session.client.channel, method, request), json_output=session.json_output)


@click.command("delete")
@click.argument("name")
@click.option(
    "--force",
    is_flag=True,
    help="Also delete its child resources, such as the versions of a model or all resources of a project.",
)
@pass_session
def delete_resource(session: Session, name: str, force: bool) -> None:
    """Delete one resource. A project is deleted in the background."""
    kind = resources.type_of(name)
    method = _method(kind, "delete")
    if force and "force" not in method.input_type.fields_by_name:
        raise ValueError(f"a {kind.singular} cannot be deleted with --force; omit it")
    request = resources.request_for(method, name=name, force=force or None)
    answer = resources.call(session.client.channel, method, request)
    outcome = (
        "deleting" if "state" in answer.DESCRIPTOR.fields_by_name else "deleted"
    )  # otherwise the response is Empty
    if session.json_output:
        click.echo(json.dumps({outcome: name}))
    else:
        click.echo(f"{outcome} {name}", err=True)


def _message(kind: resources.ResourceType, given: dict[str, Any]) -> Any:
    return json_format.ParseDict(given, message_factory.GetMessageClass(kind.message)())


def _method(kind: resources.ResourceType, verb: str) -> Any:
    if verb not in kind.methods:
        raise ValueError(f"{kind.plural} do not support {verb!r}; supported: {', '.join(sorted(kind.methods))}")
    return kind.methods[verb]
