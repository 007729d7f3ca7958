"""Workarounds for defects of kafka-python 3.0.12 and of the embedded broker. The only module that uses internals of the client."""

from kafka import KafkaConsumer
from kafka.structs import MemberState


def resume_dropped_join(consumer: KafkaConsumer) -> bool:
    """Completes a group join that kafka-python has dropped. Returns True if there was one. Call it after polls.

    kafka-python starts a rejoin when a topic is missing from the metadata, for example while the broker's storage is unavailable. If the
    topic reappears before the join completes, the client considers the join unnecessary: heartbeats stay disabled, partitions stay revoked,
    and polls return nothing indefinitely.
    """
    coordinator = consumer._coordinator
    if coordinator.group_metadata().state is not MemberState.REBALANCING or coordinator.need_rejoin():
        return False
    coordinator.request_rejoin()
    return True


def leave_silently(consumer: KafkaConsumer) -> None:
    """Makes the consumer close without a LeaveGroup request. The group removes the member after its session timeout.

    If the leader leaves during a join, for example because two members leave at once, the embedded broker elects no new leader and never
    assigns partitions in that group again. A leader whose session times out is replaced.
    """
    consumer._coordinator.coordinator_id = None  # a member without a coordinator sends no LeaveGroup request
