"""Records to a distributed log, and from it into a store; each message is a CloudEvent.

The log is Kafka. The face loads lazily, because the client (`sidelight[kafka]`) is imported only by
a relay that has a stream, and by a consumer.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.stream.messages import Message, MessageWriter, record_of

__all__ = ["Message", "MessageWriter", "record_of"]

__getattr__ = lazily(__name__, {"messages": "Message MessageWriter record_of"})
