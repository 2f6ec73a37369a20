"""kombu's Redis transport, for workers that go on after an acknowledgement that Redis did not take.

kombu counts such a message as one being worked on for as long as the connection lasts, and a worker that takes one at
a time never takes another. Here it is done with; at worst Redis gives it out a second time, which rings in vain.
"""

from typing import Any

from kombu.transport import redis, virtual


class RedisQoS(redis.QoS):
    """Lets go of a message whether or not Redis hears of it."""

    def ack(self, delivery_tag: Any) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except Exception:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


class RedisChannel(redis.Channel):
    """The channel with that."""

    QoS = RedisQoS


class RedisTransport(redis.Transport):
    """The transport of that channel."""

    Channel = RedisChannel
