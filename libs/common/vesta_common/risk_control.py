"""Chooses which predictions are accepted without a human, so that their error rate keeps a limit. Pure.

Learn then Test (Angelopoulos, Bates, Candès, Jordan, Lei, arXiv 2110.01052) with fixed-sequence testing: margins are tested from the
largest down, each for the hypothesis that the predictions with at least this margin exceed the limit, until one cannot be rejected. The
p-values are exact binomial tails. The order and the first margin depend on the margins alone, never on which predictions were right, so
that a limit is exceeded with a probability of at most 5 %, whatever the relation of margins and errors is.

Training stores the evidence with a model version, and serving chooses the margins for the policy of each deployment.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import Estimate, HeldOutPredictions, ModelVersion

CONFIDENCE = 0.95
ERROR_RATE_MAX_DEFAULT = 0.02
LEVEL_MAX = 100
LEVELS = tuple(1 - 10 ** (-level / 25) for level in range(LEVEL_MAX + 1))
"""The margins that are tested, fixed in advance: the distance from 1 shrinks by the same factor from each to the next."""
HELD_OUT_MAX = 5000
CONCEPTS_MAX = 20_000  # of all held-out predictions together
# The first margin is that of a quarter of the predictions, within these multiples of the number needed without an error. A single error
# among few predictions would end the sequence, and many would contain more errors than the most certain part of them.
START_SHARE = 0.25
START_MAX = 2
BISECTIONS = 50


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A prediction for a held-out item, with its concepts and whether it is entirely right."""

    margin: float
    concepts: tuple[str, ...]
    is_correct: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest error rates of accepted predictions, in [0, 1].

    Attributes:
        error_rate_max: of predictions of concepts that are not in `by_concept`, and of no concept.
        by_concept: a prediction of several concepts must keep the smallest of their rates.
    """

    error_rate_max: float = ERROR_RATE_MAX_DEFAULT
    by_concept: Mapping[str, float] = field(default_factory=dict)

    def group(self, concepts: Iterable[str]) -> str:
        """Returns the concept whose own limit decides about a prediction; empty if the general limit does."""
        own = {concept: self.by_concept.get(concept) for concept in concepts}
        rates = {concept if rate is not None else "": self.rate(concept) for concept, rate in own.items()}
        return min(rates, key=lambda group: (rates[group], group), default="")

    def rate(self, group: str) -> float:
        """Returns the limit of a group or a concept."""
        return self.by_concept.get(group, self.error_rate_max)

    @classmethod
    def of(cls, policy: UncertaintyPolicy, version: ModelVersion) -> "Limits | None":
        """Returns the limits of a deployment's policy for a model version; None if it has fixed bounds, which decide instead.

        Concepts that the version does not have are left out. `score_certain` is ignored for versions with thresholds per concept.
        """
        if policy.HasField("margin_certain") or (policy.HasField("score_certain") and not version.thresholds):
            return None
        rate = policy.error_rate_max if policy.HasField("error_rate_max") else ERROR_RATE_MAX_DEFAULT
        own = {
            one: policy.concept_error_rates_max[one]
            for one in version.concepts
            if one in policy.concept_error_rates_max
        }
        return cls(rate, own)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of predictions, each with one limit; the general one is first and empty."""
        return ("", *sorted(self.by_concept))


@dataclass(frozen=True, slots=True)
class Bound:
    """The margin from which a group of predictions is accepted.

    Attributes:
        error_rate_max: the limit.
        level: an index of `LEVELS`; None if no prediction is accepted.
        reason: why `level` is None; empty otherwise.
    """

    error_rate_max: float
    level: int | None
    reason: str = ""

    @property
    def margin_min(self) -> float | None:
        """The smallest accepted margin."""
        return None if self.level is None else LEVELS[self.level]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Decides which predictions of a model version are accepted without a human. `bounds` has one for each group of `limits`."""

    limits: Limits
    bounds: Mapping[str, Bound]
    held_out_count: int

    def why_not(self, margin: float, concepts: Iterable[str], cause: str = "") -> str:
        """Returns why a prediction is not accepted; empty if it is.

        Args:
            concepts: that it predicts.
            cause: what makes the margin small, in words.
        """
        bound = self.bounds[self.limits.group(concepts)]
        if bound.level is None:
            return bound.reason
        if level_of(margin) >= bound.level:
            return ""
        below = f"the margin {margin:.2f} is below {LEVELS[bound.level]:.2f}, from which {_kept(bound.error_rate_max)}"
        return f"{cause}: {below}" if cause else below


def accept(evidence: Sequence[HeldOut], limits: Limits) -> Acceptance:
    """Chooses the smallest margin of each group of predictions that keeps its limit with enough confidence.

    All limits are kept together with the confidence `CONFIDENCE`, by Bonferroni's correction.

    Args:
        evidence: predictions for items that represent those to come, and that the model was not trained on.
    """
    groups = limits.groups
    level_counts = {group: [0] * (LEVEL_MAX + 1) for group in groups}
    error_counts = {group: [0] * (LEVEL_MAX + 1) for group in groups}
    for prediction in evidence:
        group, level = limits.group(prediction.concepts), level_of(prediction.margin)
        level_counts[group][level] += 1
        error_counts[group][level] += not prediction.is_correct
    chance = (1 - CONFIDENCE) / len(groups)
    bounds = {
        group: _bound(level_counts[group], error_counts[group], limits.rate(group), chance, group) for group in groups
    }
    return Acceptance(limits, bounds, len(evidence))


def accept_nothing(limits: Limits, reason: str) -> Acceptance:
    """Returns an acceptance of no prediction, for this reason."""
    return Acceptance(limits, {group: Bound(limits.rate(group), None, reason) for group in limits.groups}, 0)


def level_of(margin: float) -> int:
    """Returns the index of the largest of `LEVELS` that a margin reaches."""
    return max(0, bisect_right(LEVELS, margin) - 1)


def labels_needed(error_rate_max: float, chance: float = 1 - CONFIDENCE) -> int | None:
    """Returns how many held-out labels without an error show that a limit is kept; None if no number does.

    Args:
        chance: the probability with which the limit may be exceeded.
    """
    if error_rate_max <= 0:
        return None
    return 1 if error_rate_max >= 1 else math.ceil(math.log(chance) / math.log1p(-error_rate_max))


def at_most(errors: int, trials: int, rate: float) -> float:
    """Returns the probability of at most `errors` errors in independent trials with this error rate (the exact binomial tail)."""
    if errors >= trials or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    constant = math.lgamma(trials + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(
                constant
                - math.lgamma(count + 1)
                - math.lgamma(trials - count + 1)
                + count * math.log(rate)
                + (trials - count) * math.log1p(-rate)
            )
            for count in range(errors + 1)
        ),
    )


def error_interval(errors: int, trials: int) -> Estimate:
    """Returns an error rate with its exact 95 % interval (Clopper and Pearson, 1934), which is valid for few trials and near 0.

    Raises:
        ValueError: the number of trials is not positive.
    """
    if trials <= 0:
        raise ValueError("an error rate requires at least one trial")
    tail = (1 - CONFIDENCE) / 2
    low = _solve(lambda rate: 1 - at_most(errors - 1, trials, rate) >= tail) if errors else 0.0
    high = _solve(lambda rate: at_most(errors, trials, rate) <= tail) if errors < trials else 1.0
    return Estimate(value=errors / trials, low=low, high=high)


def _solve(is_reached: Callable[[float], bool]) -> float:
    """Returns the smallest rate in [0, 1] for which a condition holds that stays true for larger rates."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_reached(middle) else (middle, high)
    return high


def pack(evidence: Sequence[HeldOut], concepts: Sequence[str], *, drawn_at_random: bool) -> HeldOutPredictions:
    """Returns the first predictions as a message of limited size.

    Args:
        concepts: those of the model version. Other concepts of predictions are not allowed.
        drawn_at_random: whether the items are a random sample.
    """
    number = {concept: index for index, concept in enumerate(concepts)}
    message = HeldOutPredictions(drawn_at_random=drawn_at_random)
    for prediction in evidence[:HELD_OUT_MAX]:
        if len(message.concepts) + len(prediction.concepts) > CONCEPTS_MAX:
            break
        message.levels.append(level_of(prediction.margin))
        message.correct.append(prediction.is_correct)
        message.concept_counts.append(len(prediction.concepts))
        message.concepts.extend(number[concept] for concept in prediction.concepts)
    return message


def unpack(message: HeldOutPredictions, concepts: Sequence[str]) -> list[HeldOut]:
    """Returns the predictions of a message, with the smallest margin of their level.

    Raises:
        ValueError: the message is inconsistent.
    """
    names: Iterator[int] = iter(message.concepts)
    if any(not 0 <= index < len(concepts) for index in message.concepts):
        raise ValueError("a held-out prediction has a concept that the model version does not have")
    if any(not 0 <= level <= LEVEL_MAX for level in message.levels):
        raise ValueError(f"a level of a held-out prediction is not in [0, {LEVEL_MAX}]")
    if sum(message.concept_counts) != len(message.concepts):
        raise ValueError("the counts of concepts of held-out predictions do not add to the number of concepts")
    return [
        HeldOut(LEVELS[level], tuple(concepts[next(names)] for _ in range(count)), is_correct)
        for level, is_correct, count in zip(message.levels, message.correct, message.concept_counts, strict=True)
    ]


def _bound(level_counts: Sequence[int], error_counts: Sequence[int], rate: float, chance: float, group: str) -> Bound:
    """Tests the margins of one group from the largest down. `level_counts` and `error_counts` are by level, not cumulative."""
    total, needed = sum(level_counts), labels_needed(rate, chance)
    of_group = f" that predict {group!r}" if group else ""
    if needed is None:
        return Bound(rate, None, f"an error rate of 0 % can never be shown{of_group}")
    if total < needed:
        reason = f"needs at least {needed} held-out labels{of_group} without an error for {_percent(rate)}; there "
        return Bound(rate, None, reason + (f"are {total}" if total != 1 else "is 1"))
    start = max(needed, min(int(total * START_SHARE), START_MAX * needed))
    accepted = errors = 0
    chosen: int | None = None
    for level in range(LEVEL_MAX, -1, -1):
        accepted += level_counts[level]
        errors += error_counts[level]
        if accepted < start or not level_counts[level]:
            continue  # a margin below which no prediction is held out adds no evidence
        if at_most(errors, accepted, rate) > chance:
            break
        chosen = level
    if chosen is None:
        reason = f"of the {accepted} held-out labels{of_group} with the largest margins, {errors} are wrong"
        return Bound(rate, None, f"{reason}, too many to show that {_kept(rate)}")
    return Bound(rate, chosen)


def _kept(rate: float) -> str:
    return f"an error rate of {_percent(rate)} is kept"


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"
