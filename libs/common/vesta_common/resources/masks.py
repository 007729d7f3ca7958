"""Partial updates (AIP-134): apply only the fields in the update mask, and only mutable fields."""

from collections.abc import Collection
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from vesta_common.errors import InvalidArgument, Violation


def apply_update(current: Any, requested: Any, mask: FieldMask, mutable: Collection[str]) -> Any:
    """Returns a copy of `current` with the masked fields of `requested`.

    An empty mask selects every mutable field that is set in `requested`; `*` selects all mutable fields.

    Args:
        mutable: the mutable field paths, such as `display_name` or `policy`. A path below one of them is allowed too.

    Raises:
        InvalidArgument: FIELD_UNKNOWN or FIELD_IMMUTABLE.
    """
    paths = list(mask.paths)
    if not paths:
        paths = [path for path in mutable if _is_set(requested, path)]
    elif paths == ["*"]:
        paths = list(mutable)
    for path in paths:
        if not any(path == known or path.startswith(known + ".") for known in mutable):
            raise InvalidArgument(
                f"{path!r} cannot be updated; mutable fields: {', '.join(sorted(mutable))}",
                reason="FIELD_IMMUTABLE",
                violations=[Violation(f"update_mask.{path}", "is immutable or unknown")],
            )
    updated = type(current)()
    updated.CopyFrom(current)
    only = FieldMask(paths=paths)
    if not only.IsValidForDescriptor(current.DESCRIPTOR):
        raise InvalidArgument(f"update_mask has an unknown field: {', '.join(paths)}", reason="FIELD_UNKNOWN")
    for path in paths:
        _copy_path(requested, updated, path.split("."))
    return updated


def _is_set(message: Any, path: str) -> bool:
    return any(field.name == path.split(".")[0] for field, _ in message.ListFields())


def _copy_path(source: Any, target: Any, path: list[str]) -> None:
    """Copies one field. Clears it if the source does not have it."""
    name, *rest = path
    if rest:
        _copy_path(getattr(source, name), getattr(target, name), rest)
        return
    field = target.DESCRIPTOR.fields_by_name[name]
    target.ClearField(name)
    if field.is_repeated:
        if field.message_type and field.message_type.GetOptions().map_entry:
            getattr(target, name).MergeFrom(getattr(source, name)) if field.message_type.fields_by_name[
                "value"
            ].message_type else getattr(target, name).update(getattr(source, name))
        else:
            getattr(target, name).MergeFrom(getattr(source, name))
    elif field.has_presence and not source.HasField(name):
        return
    elif field.message_type:
        getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))
