"""Which offsets may be committed: the next after what was delivered, of partitions that are still ours.

A rebalance first revokes all partitions and then assigns some (the eager protocol). kafka-python goes on reading those that are
assigned to the same member again from where it was, and so their offsets stay; those that are not are lost, and so is all that was
not committed of them. It tells on a thread of its own, but only while the consumer's waits in a poll or in the close.
"""

from collections.abc import Iterable, Mapping

from kafka import TopicPartition


class Offsets:
    """What one member of a group has delivered, and what it has lost since it last polled."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    # What was delivered.

    def deliver(self, partition: TopicPartition, next_offset: int) -> None:
        """All before `next_offset` was delivered; of no consequence where the partition is lost."""
        if partition not in self._lost:
            self._next[partition] = next_offset

    def uncommitted(self) -> dict[TopicPartition, int]:
        """The next offset of each partition that got on since it was last committed."""
        return dict(self._next)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """These were committed."""
        for partition, offset in offsets.items():
            if self._next.get(partition) == offset:
                del self._next[partition]

    # What is ours.

    def poll(self) -> None:
        """Records came: they are of partitions that are ours, and nothing is in hand of those lost before."""
        self._lost.clear()

    def is_lost(self, partition: TopicPartition) -> bool:
        """Whether the partition went to another member since records were last polled; it may have come back."""
        return partition in self._lost

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """A rebalance begins: these may go to others."""
        self._revoked.update(partitions)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """A rebalance has ended: these, and no others, are ours."""
        self.lose(self._revoked.difference(partitions))

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        """These are no longer ours."""
        for partition in partitions:
            self._lost.add(partition)
            self._next.pop(partition, None)
        self._revoked.clear()
