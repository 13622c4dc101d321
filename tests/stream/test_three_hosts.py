"""Three hosts and three consumers, each a process of its own: each id is in the store once."""

from benchmarks.stream_latency import CONSUMERS, HOSTS, PARTITIONS
from benchmarks.stream_latency import through_kafka as deliver
from tests.support import kafka
from tests.support.postgres import new_database, own_server


def test_each_id_of_three_hosts_is_stored_once_by_three_consumers(tmp_path):
    topic = kafka.broker().new_topic(partitions=PARTITIONS)
    found = deliver(topic, new_database(own_server()), tmp_path, seconds=1.0, rate=50)
    assert CONSUMERS == HOSTS == 3
    assert len(found.ids) > HOSTS
    assert sorted(found.stored) == sorted(found.ids)
    assert len(found.seconds) == len(found.ids) - HOSTS
    assert found.quantile(0.5) > 0
    assert found.hosts == {"host-0", "host-1", "host-2"}
