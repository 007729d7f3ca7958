"""Consumes events: each has its effect once, in order per key; what cannot be handled is set aside with the reason.

The contract of offsets, which every module here keeps:

1. What is committed is the offset of the *next* record, after each record before it was delivered: it had its effect, was of no
   concern, or is kept as a dead letter. A kill therefore repeats records and never passes one over; the inbox drops the repeats.
2. Records of a partition are delivered in order, one transaction after another. What fails for a while is tried again for ever and
   holds up what comes after it; the member stays in its group meanwhile.
3. Nothing is committed of a partition that went to another member, and what is still in hand of it is dropped: the other one reads
   on from what was committed. A partition that stays with a member through a rebalance goes on where it was.
4. Commits are throttled. One that fails is made up for by the next.
5. The one exception to the first: a record whose bytes cannot be read is passed over, counted among the dead, and named in the log.

What fails for good is tried three times and then becomes a dead letter; too many of them in a while stop the consumer and make it
unhealthy, for then the fault is ours. Records that are no events become dead letters at once, and are not our fault.

| module | concern |
|---|---|
| `loop` | the consumer's thread: poll, deliver, commit, begin again |
| `membership` | one membership of the group on Kafka: polling, resting, committing, leaving |
| `faults` | what goes wrong in groups through others' faults, and the remedies |
| `options` | how to reach the broker |
| `fetch_wait` | how long the broker may take for a fetch |
| `offsets` | which offsets may be committed |
| `unreadable` | the record at which a partition cannot be read on |
| `records` | which records are events for us, and which are poison |
| `delivery` | brings each record to its end, in order |
| `retries` | when to try again, when to give up, when to stop |
| `dead_letter_topic` | where records that cannot be handled are kept |
| `handlers` | hands events to their handlers in the transaction of the inbox |
| `metrics` | what is counted |
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
