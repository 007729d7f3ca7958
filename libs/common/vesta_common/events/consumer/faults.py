"""Workarounds for defects of kafka-python 3.0.12. The only module here that uses internals of the client."""

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
