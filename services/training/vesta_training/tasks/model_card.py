"""The model card: data, recipe, metrics and limitations of a model, as JSON and as Markdown.

Source: Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from google.protobuf.json_format import MessageToDict
from vesta_contracts.training.v1 import Comparison, Estimate, ExclusionCounts, Metrics

from vesta_training.example import Example, Split
from vesta_training.features.backbone import Backbone
from vesta_training.models.export import Export
from vesta_training.recipes.recipe import Recipe, choices_of
from vesta_training.tasks.assignment import describe_excluded

PACKAGES = ("numpy", "onnx", "onnxruntime", "scipy", "torch", "torchvision")
# The recall of a concept with fewer test items is too uncertain, and the card contains a caution.
TEST_ITEMS_FOR_RECALL_MIN = 20


def make_card(
    *,
    recipe: Recipe,
    backbone: Backbone,
    snapshot: str,
    snapshot_digest: str,
    examples: Sequence[Example],
    concepts: Sequence[str],
    excluded: ExclusionCounts,
    fitted: Mapping[str, Any],
    metrics: Metrics | None,
    metrics_missing_reason: str,
    comparison: Comparison | None,
    export: Export,
    embedding_digest: str,
    seed: int,
    device: str,
    threads: int,
    finetune_skipped: str,
    caution: str,
) -> dict[str, Any]:
    """Returns the card as a JSON value. It contains no time and no machine, so that equal trainings have equal cards."""
    choices, reasons = choices_of(recipe), recipe.reasons
    counts = {
        split: Counter(c for example in examples if example.split is split for c in example.concepts) for split in Split
    }
    return {
        "task": recipe.task.value,
        "file": {"sha256": export.digest, "sizeBytes": export.size_bytes, "differenceMax": export.difference_max},
        "input": "pixels: uint8 (N, H, W, 3) RGB; resized and normalised inside",
        "embedding": {"digest": embedding_digest},
        "data": {
            "snapshot": snapshot,
            "snapshotDigest": snapshot_digest,
            "items": {split.value: sum(example.split is split for example in examples) for split in Split},
            "concepts": [
                {"concept": concept, **{split.value: counts[split][concept] for split in Split}} for concept in concepts
            ],
            "excluded": MessageToDict(excluded, always_print_fields_with_no_presence=True),
        },
        "recipe": {
            "name": recipe.name,
            "digest": recipe.digest,
            "summary": recipe.summary,
            "seed": seed,
            "choices": [{"choice": k, "value": v, "because": reasons.get(k, "")} for k, v in choices.items()],
        },
        "backbone": {
            "architecture": backbone.architecture,
            "weightsSha256": backbone.weights_sha256,
            "weightsLicense": backbone.weights_license,
            "weightsSource": backbone.weights_source,
        },
        "computed": {"device": device, "threads": threads},
        "fitted": dict(fitted),
        "finetuneSkippedReason": finetune_skipped,
        "metrics": MessageToDict(metrics) if metrics is not None else None,
        "metricsMissingReason": metrics_missing_reason,
        "comparison": MessageToDict(comparison) if comparison is not None else None,
        "cautions": [
            *filter(None, (finetune_skipped, caution)),
            *_cautions(recipe, concepts, counts, metrics, excluded),
        ],
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }


def card_markdown(card: Mapping[str, Any], metrics: Metrics | None) -> str:
    """Returns the card as Markdown."""
    data, recipe, backbone = card["data"], card["recipe"], card["backbone"]
    lines = [
        f"# Model card: {card['task']}",
        "",
        f"{recipe['summary']} Recipe `{recipe['name']}`, seed {recipe['seed']}.",
        "",
        f"* File: SHA-256 `{card['file']['sha256']}`, {card['file']['sizeBytes']} bytes; {card['input']}",
        f"* Snapshot: `{data['snapshot'] or 'none'}`, digest `{data['snapshotDigest'] or 'none'}`",
        "* Items: " + ", ".join(f"{split} {count}" for split, count in data["items"].items()),
        f"* Weights: {backbone['architecture']}, {backbone['weightsSource']}",
        f"* Licence of the weights: {backbone['weightsLicense']}; SHA-256 `{backbone['weightsSha256']}`",
        f"* Embedding: space `{card['embedding']['digest']}`",
        f"* Computed on: {card['computed']['device']}, {_threads(card['computed']['threads'])}",
    ]
    if metrics is None:
        lines += ["", "## Not measured", "", card["metricsMissingReason"]]
    else:
        lines += [
            "",
            f"## On {metrics.item_count} test items",
            "",
            *(f"* {name} {_percent(value)}" for name, value in _main_metrics(metrics)),
            f"* Expected calibration error {metrics.calibration_error:.3f}, log loss {metrics.log_loss:.3f}",
            "",
            "| concept | learned from | tested on | precision | recall |",
            "|---|---|---|---|---|",
        ]
        training_counts = {
            row["concept"]: row[Split.TRAIN.value] + row[Split.VALIDATION.value] for row in data["concepts"]
        }
        lines += [
            f"| {concept.concept} | {training_counts.get(concept.concept, 0)} | {concept.item_count} | "
            f"{_percent(concept.precision) if concept.HasField('precision') else '–'} | "
            f"{_percent(concept.recall) if concept.HasField('recall') else '–'} |"
            for concept in metrics.concepts
        ]
    if starts := card["fitted"].get("starts"):
        lines += _starts(starts, card["fitted"]["startMissingReason"])
    if card["cautions"]:
        lines += ["", "## Cautions", "", *(f"* {caution}" for caution in card["cautions"])]
    lines += ["", "## Choices", "", "| choice | value | because |", "|---|---|---|"]
    lines += [f"| {choice['choice']} | {choice['value']} | {choice['because']} |" for choice in recipe["choices"]]
    lines += ["", "Made with " + ", ".join(f"{name} {version}" for name, version in card["versions"].items()) + ".", ""]
    return "\n".join(lines)


def _starts(starts: Sequence[Mapping[str, Any]], missing: str) -> list[str]:
    """Returns the starts that were compared, with the licences of their weights."""
    lines = ["", "## Starts", ""]
    lines += [
        "| start | mAP@50 on held-out training images | chosen | licence | source | SHA-256 |",
        "|---|---|---|---|---|---|",
    ]
    for start in starts:
        value = start["heldOutMeanPrecision50"]
        figure, chosen = f"{100 * value:.1f} %" if value is not None else "–", "yes" if start["chosen"] else "no"
        weights = " | ".join(
            str(start[key]).replace("|", "/").replace("\n", " ") for key in ("license", "source", "sha256")
        )
        lines.append(f"| {start['start']} | {figure} | {chosen} | {weights} |")
    return [*lines, *(["", missing] if missing else [])]


def _main_metrics(metrics: Metrics) -> list[tuple[str, Estimate]]:
    """Returns the main metrics that were measured, with their names."""
    measured = {field.name for field, _ in metrics.ListFields()}
    names = {
        "accuracy": "Accuracy",
        "macro_f1": "Macro-F1",
        "mean_average_precision_50": "mAP@50",
        "mean_average_precision": "mAP@50:95",
        "mean_iou": "mIoU",
    }
    return [(name, getattr(metrics, field)) for field, name in names.items() if field in measured]


def _cautions(
    recipe: Recipe,
    concepts: Sequence[str],
    counts: Mapping[Split, Counter[str]],
    metrics: Metrics | None,
    excluded: ExclusionCounts,
) -> list[str]:
    training_counts = counts[Split.TRAIN] + counts[Split.VALIDATION]
    learns = recipe.head is not None or recipe.detection is not None
    unseen = [concept for concept in concepts if learns and not training_counts[concept]]
    uncertain = [
        concept.concept
        for concept in (metrics.concepts if metrics is not None else [])
        if concept.item_count < TEST_ITEMS_FOR_RECALL_MIN
    ]
    cautions = []
    if unseen:
        cautions.append(f"Never predicted, because there were no training examples: {', '.join(unseen)}.")
    if uncertain:
        cautions.append(
            f"Recall unreliable, with fewer than {TEST_ITEMS_FOR_RECALL_MIN} test items: {', '.join(uncertain)}."
        )
    if excluded_items := describe_excluded(excluded):
        cautions.append(f"Annotated items that were excluded from training and test: {excluded_items}.")
    return cautions


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"
