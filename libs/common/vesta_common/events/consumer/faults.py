"""Faults of kafka-python 3.0.12 and of the embedded broker in groups, and the remedies: the one place that knows the client inside."""

from kafka import KafkaConsumer
from kafka.structs import MemberState


def resume_forgotten_join(consumer: KafkaConsumer) -> bool:
    """Lets a member end a join that kafka-python has forgotten; answers whether there was one. To be asked after polls.

    It begins to join anew because a topic is missing from the metadata, as happens while a broker's own storage is away; where the topic
    is back before the join has ended, it takes the join for needless: heartbeats stay disabled, partitions held back, and polls
    answer nothing for ever.
    """
    coordinator = consumer._coordinator
    if coordinator.group_metadata().state is not MemberState.REBALANCING or coordinator.need_rejoin():
        return False
    coordinator.request_rejoin()
    return True


def vanish(consumer: KafkaConsumer) -> None:
    """Lets the consumer close without a word to its group, which takes it for dead after one session.

    The embedded broker does not elect another leader where its leader leaves a group in which a join is under way, as when two members
    leave at once, and never again assigns a partition in that group. A leader that is taken for dead is replaced.
    """
    consumer._coordinator.coordinator_id = None  # a member that knows no coordinator tells none
