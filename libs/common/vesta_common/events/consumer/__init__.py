"""The event consumer: each event takes effect once, in order per key. Events that cannot be handled go to a dead-letter topic.

Offset contract, which all modules of this package implement:

1. The committed offset is the offset of the *next* record. It is committed only after every earlier record was delivered: handled,
   skipped as irrelevant, or stored as a dead letter. A crash therefore redelivers records and never loses one. The inbox discards
   duplicates.
2. Records of a partition are delivered in order, one transaction after the other. A transient failure is retried indefinitely and blocks
   the records that follow. The member stays in its group meanwhile.
3. After a rebalance, nothing is committed for partitions that moved to another member, and their undelivered records are discarded. The new
   owner reads from the committed offset. A partition that stays with its member continues at the current position.
4. Commits are throttled. A failed commit is covered by the next one.
5. One exception to rule 1: a record whose bytes cannot be read is skipped, counted as a dead letter, and logged.

A permanent failure is attempted three times, then the event becomes a dead letter. Too many dead letters within a time window stop the
consumer and make it unhealthy, because the cause is then probably in the consumer itself. Records that are not valid events become dead
letters immediately and do not count towards this limit.

| module | content |
|---|---|
| `loop` | the consumer thread: polls, delivers, commits, rejoins |
| `membership` | membership of the Kafka consumer group: polling, pausing, committing, leaving |
| `faults` | known defects of the Kafka client in group handling, and workarounds |
| `options` | connection and timing options |
| `offsets` | which offsets may be committed |
| `unreadable` | finds records that the client cannot read |
| `records` | decodes records; separates events from irrelevant and invalid records |
| `delivery` | delivers records in order, with retries |
| `retries` | retry policy: backoff, attempts, circuit breaker |
| `dead_letter_topic` | stores records that cannot be handled |
| `handlers` | calls event handlers in the transaction of the inbox |
| `metrics` | Prometheus metrics |
"""

from vesta_common.events.consumer.handlers import BatchHandler, Handler, Preparation
from vesta_common.events.consumer.loop import Consumer
from vesta_common.events.consumer.metrics import ConsumerMetrics
from vesta_common.events.consumer.options import KafkaOptions
from vesta_common.events.consumer.retries import TooManyDeadLetters

__all__ = [
    "BatchHandler",
    "Consumer",
    "ConsumerMetrics",
    "Handler",
    "KafkaOptions",
    "Preparation",
    "TooManyDeadLetters",
]
