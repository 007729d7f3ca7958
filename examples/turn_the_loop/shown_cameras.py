"""Two cameras that show photographs of the test split to a deployment, and what was observed."""

from collections.abc import Callable

import cameras
from kafka.errors import KafkaError
from vesta import ApiError, Vesta
from vesta_contracts.datasets.v1 import Split
from vesta_contracts.pipelining.v1 import Observation
from world import World

FRAME_COUNT = 40


def show(owner: Vesta, kafka: str, world: World, deployment: str, tell: Callable[[str], None]) -> int:
    """Lets two cameras send photographs, and tells the observations. Returns their number.

    A failure of the cameras is told and not raised, so that the report of the loop is still written.
    """
    if not kafka:
        tell("No camera sends frames: set --kafka HOST:PORT, an address of the broker that this machine can reach.")
        return 0
    shown = [world.photographs[item.name].path for item in world.items if item.split == Split.SPLIT_TEST]
    frames = shown[:: max(1, len(shown) // FRAME_COUNT)][:FRAME_COUNT]
    try:
        streams = cameras.open_streams(owner, world.project, world.dataset.name, deployment, ("door", "yard"))
        seen = cameras.watch(owner, streams, kafka, frames)
    except (ApiError, KafkaError) as error:
        tell(f"[red]The cameras were not seen: {error}[/red]")
        return 0
    missed = f" ({len(frames) - len(seen)} frames were not observed)" if len(seen) < len(frames) else ""
    tell(f"Two cameras sent {len(frames)} frames over Kafka; {len(seen)} observations{missed}, such as:")
    for observation in seen[:3]:
        doubt = ", uncertain: sent to the experts" if observation.prediction.uncertain else ""
        tell(f"  {observation.name.split('/')[5]}: {_in_words(observation, world)}{doubt}")
    return len(seen)


def _in_words(observation: Observation, world: World) -> str:
    scores = {score.concept: score.score for score in observation.prediction.scores}
    found = [one.concept for one in world.task_type.predicted(observation.prediction)]
    return ", ".join(f"{concept} {scores.get(concept, 0):.2f}" for concept in found) or "nothing for sure"
