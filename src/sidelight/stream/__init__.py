"""Records to a distributed log, and from it into a store; each message is a CloudEvent.

The log is Kafka. The face loads lazily, because the client (`sidelight[kafka]`) is imported only by
a relay that has a stream, and by a consumer.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.stream.asyncapi import asyncapi_document
    from sidelight.stream.batches import SetAside
    from sidelight.stream.connection import StreamAddress, client_properties
    from sidelight.stream.consumer import Progress, StreamConsumer
    from sidelight.stream.lag import look_at_group
    from sidelight.stream.messages import Message, MessageWriter
    from sidelight.stream.metrics import register
    from sidelight.stream.problems import look_at_topic
    from sidelight.stream.producer import check_properties
    from sidelight.stream.reading import Event, Told, read_message
    from sidelight.stream.sink import StreamSink

__all__ = [
    "Event",
    "Message",
    "MessageWriter",
    "Progress",
    "SetAside",
    "StreamAddress",
    "StreamConsumer",
    "StreamSink",
    "Told",
    "asyncapi_document",
    "check_properties",
    "client_properties",
    "look_at_group",
    "look_at_topic",
    "read_message",
    "register",
]

__getattr__ = lazily(
    __name__,
    {
        "asyncapi": "asyncapi_document",
        "batches": "SetAside",
        "connection": "StreamAddress client_properties",
        "consumer": "Progress StreamConsumer",
        "lag": "look_at_group",
        "messages": "Message MessageWriter",
        "metrics": "register",
        "problems": "look_at_topic",
        "producer": "check_properties",
        "reading": "Event Told read_message",
        "sink": "StreamSink",
    },
)
