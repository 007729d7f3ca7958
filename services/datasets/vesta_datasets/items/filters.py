"""The filter language of items: its fields, and their columns in PostgreSQL."""

from collections.abc import Callable, Mapping

from vesta_common.resources.filters import Field, Where, boolean, compile_filter, instant, one_of

_FIELDS: Mapping[str, Field] = {
    "split": Field("items.split", one_of("TRAIN", "VALIDATION", "TEST")),
    "labelled": Field("items.labelled", boolean),
    "annotated": Field("(items.accepted IS NOT NULL)", boolean),
    "reviewed": Field("items.reviewed", boolean),
    "control": Field("items.control", boolean),
    "duplicate": Field("(items.duplicate_of <> '')", boolean),
    "label": Field("", has="(items.labels @> ARRAY[%(value)s])"),
    "labels": Field("", has="(items.labels @> ARRAY[%(value)s])"),
    "concept": Field("", has="(items.labels @> ARRAY[%(value)s] OR items.shape_concepts @> ARRAY[%(value)s])"),
    "object_count": Field("items.object_count", int, ordered=True),
    "object_area_min": Field("items.object_area_min", float, ordered=True),
    "object_area_max": Field("items.object_area_max", float, ordered=True),
    "duplicate_object_count": Field("items.duplicate_object_count", int, ordered=True),
    "file_name": Field("items.file_name", ordered=True),
    "sha256": Field("items.sha256"),
    "source": Field("items.source"),
    "create_time": Field("items.create_time", instant, ordered=True),
    "update_time": Field("items.update_time", instant, ordered=True),
}
_PREDICTION_FIELDS: Mapping[str, Field] = {
    "uncertain": Field("items.uncertain", boolean),
    "scored": Field("(items.scores IS NOT NULL)", boolean),
    "predicted": Field("", has="(%(value)s = ANY(items.predicted_labels))"),
    "model_version": Field("items.scored_by"),
    "score": Field("items.score", float, ordered=True),
    "margin": Field("items.margin", float, ordered=True),
    "predicted_count": Field("items.predicted_count", int, ordered=True),
    "predicted_area_min": Field("items.predicted_area_min", float, ordered=True),
    "predicted_area_max": Field("items.predicted_area_max", float, ordered=True),
}


def _metadata(key: str) -> Field:
    return Field(f"(items.metadata ->> {_quoted(key)})")


def _predicted(place: int, parse: Callable[[str], float]) -> Callable[[str], Field]:
    """Returns the fields of a figure of the predicted objects of a concept, given its place in `predicted_figures`."""

    def field_of(concept: str) -> Field:
        value = f"(items.predicted_figures -> {_quoted(concept)} ->> {place})"
        sql = f"coalesce({value}::integer, 0)" if parse is int else f"{value}::real"
        return Field(sql, parse, ordered=True)

    return field_of


def _quoted(text: str) -> str:
    """Returns a part of the name of a field as SQL text, because it cannot be a parameter."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


_PREFIXED: Mapping[str, Callable[[str], Field]] = {"metadata.": _metadata}
_PREDICTION_PREFIXED: Mapping[str, Callable[[str], Field]] = {
    "predicted_count.": _predicted(0, int),
    "predicted_area_min.": _predicted(1, float),
    "predicted_area_max.": _predicted(2, float),
}


def item_filter(text: str, *, predictions: bool = True) -> Where:
    """Compiles a ListItems filter to an SQL condition. Raises InvalidArgument if the filter is invalid.

    Args:
        predictions: whether the filter may use the fields of predictions.
    """
    if not predictions:
        return compile_filter(text, _FIELDS, _PREFIXED)
    return compile_filter(text, {**_FIELDS, **_PREDICTION_FIELDS}, {**_PREFIXED, **_PREDICTION_PREFIXED})
