"""Which predictions of a model version are accepted without a human under a deployment's policy. Pure."""

from functools import lru_cache

from vesta_common.risk_control import CONFIDENCE, Acceptance, Bound, Limits, accept, accept_nothing, unpack
from vesta_contracts.serving.v1 import AutomaticAcceptance, UncertaintyPolicy
from vesta_contracts.training.v1 import ModelVersion

CACHED_MAX = 1024
FIXED = "The fixed bounds score_certain and margin_certain decide which predictions are certain, and no error rate is promised."


def acceptance_of(policy: UncertaintyPolicy, version: ModelVersion) -> Acceptance | None:
    """Returns what is accepted; None if fixed bounds of the policy decide."""
    evidence = ModelVersion(
        name=version.name, concepts=version.concepts, thresholds=version.thresholds, held_out=version.held_out
    )
    return _acceptance(policy.SerializeToString(deterministic=True), evidence.SerializeToString(deterministic=True))


def describe(policy: UncertaintyPolicy, version: ModelVersion) -> AutomaticAcceptance:
    """Returns what is accepted, for the owner of the deployment."""
    acceptance = acceptance_of(policy, version)
    if acceptance is None:
        return AutomaticAcceptance(held_out_count=len(version.held_out.levels), message=FIXED)
    general, *own = ((group, acceptance.bounds[group]) for group in acceptance.limits.groups)
    sentences = [_sentence(group, bound) for group, bound in (general, *own)]
    if acceptance.held_out_count:
        like = (
            ""
            if version.held_out.drawn_at_random
            else ", for images like those of the test split, which its user assigned"
        )
        sentences.append(
            f"These limits hold with a confidence of {CONFIDENCE:.0%} by {acceptance.held_out_count} held-out labels{like}."
        )
    unknown = sorted(set(policy.concept_error_rates_max) - set(version.concepts))
    if unknown:
        sentences.append(f"{version.name} does not have the concept {unknown[0]!r} of concept_error_rates_max.")
    return AutomaticAcceptance(
        margin_min=general[1].margin_min,
        concept_margins_min={group: bound.margin_min for group, bound in own if bound.margin_min is not None},
        held_out_count=acceptance.held_out_count,
        message=" ".join(sentences),
    )


@lru_cache(CACHED_MAX)
def _acceptance(policy_bytes: bytes, version_bytes: bytes) -> Acceptance | None:
    policy, version = UncertaintyPolicy.FromString(policy_bytes), ModelVersion.FromString(version_bytes)
    limits = Limits.of(policy, version)
    if limits is None:
        return None
    thresholds = dict(zip(version.concepts, version.thresholds, strict=False))
    moved = [one for one, value in policy.thresholds.items() if thresholds.get(one, value) != value]
    if moved:
        return accept_nothing(
            limits,
            f"the deployment sets another threshold of {min(moved)!r}, and the errors are known only for the thresholds of "
            f"{version.name}; remove it, or set margin_certain",
        )
    try:
        return accept(unpack(version.held_out, version.concepts), limits)
    except ValueError as error:
        return accept_nothing(limits, f"the held-out predictions of {version.name} are unusable: {error}")


def _sentence(group: str, bound: Bound) -> str:
    of_group = f" of {group!r}" if group else ""
    if bound.margin_min is None:
        return f"No prediction{of_group} is certain: {bound.reason}."
    return (
        f"Predictions{of_group} with a margin of at least {bound.margin_min:.2f} are certain, of which at most "
        f"{100 * bound.error_rate_max:g} % are wrong."
    )
