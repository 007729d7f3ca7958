"""Tracks which offsets may be committed: the next offset after delivered records, for partitions that are still assigned.

A rebalance first revokes all partitions and then assigns some (eager protocol). For partitions that return to the same member, kafka-python
continues at the previous position, so their offsets remain valid. All other partitions are lost, with their uncommitted offsets.
kafka-python calls the rebalance listener on its own thread, but only while the consumer thread waits in a poll or in close.
"""

from collections.abc import Iterable, Mapping

from kafka import TopicPartition


class Offsets:
    """The delivered offsets of a group member, and the partitions lost since its last poll."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    # Delivered offsets.

    def deliver(self, partition: TopicPartition, next_offset: int) -> None:
        """Records that everything before `next_offset` was delivered. Ignored if the partition is lost."""
        if partition not in self._lost:
            self._next[partition] = next_offset

    def uncommitted(self) -> dict[TopicPartition, int]:
        """Returns the next offset of each partition with uncommitted progress."""
        return dict(self._next)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Records that these offsets were committed."""
        for partition, offset in offsets.items():
            if self._next.get(partition) == offset:
                del self._next[partition]

    # Assigned partitions.

    def poll(self) -> None:
        """Records a poll: new records belong to assigned partitions, and no record of a previously lost partition is pending."""
        self._lost.clear()

    def is_lost(self, partition: TopicPartition) -> bool:
        """Returns True if the partition was reassigned since the last poll, even if it has come back meanwhile."""
        return partition in self._lost

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Records the start of a rebalance: these partitions may move to other members."""
        self._revoked.update(partitions)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Records the end of a rebalance: exactly these partitions are assigned."""
        self.lose(self._revoked.difference(partitions))

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        """Records that these partitions are no longer assigned."""
        for partition in partitions:
            self._lost.add(partition)
            self._next.pop(partition, None)
        self._revoked.clear()
