"""A worker's side of a Redis broker that does not answer for a while."""

import kombu
import pytest
import redis

from service.queue import make_celery, publish
from service.settings import Settings


@pytest.mark.integration
def test_messages_come_on_after_one_whose_acknowledgement_was_not_taken(settings: Settings, redis_url: str) -> None:
    celery = make_celery(settings.model_copy(update={"broker_url": redis_url}))
    celery.conf.broker_transport_options = {"socket_timeout": 0.3}
    received: list[kombu.Message] = []
    with celery.connection_for_read() as connection, redis.Redis.from_url(redis_url) as server:
        consumer = connection.Consumer(
            [kombu.Queue("cpu")], callbacks=[lambda _, message: received.append(message)], prefetch_count=1
        )
        with consumer:
            publish(celery, "job_1", "cpu")
            connection.drain_events(timeout=10)
            server.client_pause(1000, all=True)
            with pytest.raises(redis.TimeoutError):
                received[0].ack()
            server.ping()  # answered at the end of the pause
            publish(celery, "job_2", "cpu")
            connection.drain_events(timeout=10)
    assert [message.payload[0] for message in received] == [["job_1"], ["job_2"]]
    celery.close()
