"""Row 6: faults of the network before PostgreSQL and before the Collector.

Spans and log records go to a real Collector, one signal over gRPC and the other over HTTP. Events
go to a real PostgreSQL. Each has its own proxy. OTLP is at least once: after the fault all
records have arrived, some perhaps twice.
"""

import itertools
import time
from collections import Counter

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.balance import balance
from tests.support.collector import Collector, require_collector
from tests.support.emitting import Order
from tests.support.postgres import new_database, own_server
from tests.support.programs import caught_up, deliver, judge, nothing_left, running, wait_until
from tests.support.proxy import Proxy

from sidelight import Store

TROUBLES = ("refuse", "reset", "silent", "drip", "lose_reply")
ANSWERS = ("302", "429", "500", "503")
HELD_FULL, HELD_SHORT = 12.0, 0.3  # seconds
SIGNALS = ("traces", "logs")
KINDS = ("scheduled", "awaited", "scheduled async", "awaited async")  # each has a span
REJECTED = "log records rejected by the OTLP endpoint"


class Networks:
    """The three peers of a program, and a proxy for each."""

    def __init__(self, collector, over_grpc):
        self.collector = collector
        server = own_server()
        self.url = new_database(server)
        self.over_grpc = over_grpc
        self.proxies = {
            "store": Proxy(server.address),
            **{
                signal: Proxy(
                    collector.grpc_address if signal == over_grpc else collector.http_address
                )
                for signal in SIGNALS
            },
        }

    def __enter__(self):
        for proxy in self.proxies.values():
            proxy.start()
        _, port = self.proxies["store"].address
        self.through = self.url.replace(f":{own_server().port}/", f":{port}/")
        self.environment = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        for signal in SIGNALS:
            grpc = signal == self.over_grpc
            name, endpoint = f"OTEL_EXPORTER_OTLP_{signal.upper()}", self.proxies[signal].endpoint
            self.environment |= {
                f"{name}_PROTOCOL": "grpc" if grpc else "http/protobuf",
                f"{name}_ENDPOINT": endpoint if grpc else f"{endpoint}/v1/{signal}",
            }
        return self

    def __exit__(self, *_):
        for proxy in self.proxies.values():
            proxy.close()

    def troubles(self):
        """Yield each peer with each trouble that it can have."""
        for peer in self.proxies:
            http = peer not in {"store", self.over_grpc}
            yield from itertools.product([peer], TROUBLES + (ANSWERS if http else ()))

    def trouble(self, peer, what):
        proxy = self.proxies[peer]
        self.struck = proxy.struck
        if what.isdigit():
            headers = {"Location": f"{proxy.endpoint}/elsewhere", "Retry-After": "1"}
            proxy.answer(int(what), headers)
        else:
            proxy.mode = what

    def heal(self):
        for proxy in self.proxies.values():
            proxy.mode = "pass"

    def arrived(self, signal):
        """Return the numbers of the calls that the Collector has, with duplicates."""
        read = self.collector.spans if signal == "traces" else self.collector.logs
        return numbers(read(at_least=0))

    def was_felt(self, peer):
        """Wait until the trouble has met a connection. A closed port cannot show that."""
        proxy = self.proxies[peer]
        wait_until(lambda: proxy.mode == "refuse" or proxy.struck > self.struck)

    def all_arrived(self, program, *peers):
        """Wait until the peers have each call that the program has reported so far."""
        wanted = set(program.reports.numbers)
        for peer in peers:
            if peer == "store":
                caught_up(self.url, program)
            else:
                wait_until(lambda peer=peer: wanted <= set(self.arrived(peer)))


def test_each_trouble_with_each_peer(tmp_path, full, randomness, progress, row):
    """While one peer is in trouble, the others get their records. It gets its own later."""
    require_collector()
    ways = SIGNALS if full else [randomness.choice(SIGNALS)]
    for over_grpc in ways:
        with Collector() as collector, Networks(collector, over_grpc) as networks:
            # Every second one still holds each trouble, and each peer with several.
            troubles = [*networks.troubles()][:: 1 if full else 2]
            randomness.shuffle(troubles)
            spool = tmp_path / over_grpc
            program = through(networks, troubles, spool, full, progress)
            # Of a request that took longer than its second, a busy machine leaves the repetition.
            deliver(networks.through, spool, otlp=collector.http_endpoint)
            tell(row, networks, program, troubles)
            nothing_left(networks.through, spool)


def through(networks, troubles, spool, full, progress):
    """Run a program through all troubles."""
    order = Order(pause=0.004, configure={}, kinds=KINDS)
    with running(networks.through, spool, order=order, environment=networks.environment) as program:
        program.emit(20)
        networks.all_arrived(program, *networks.proxies)
        for number, (peer, what) in enumerate(troubles):
            progress(f"{peer}: {what}, {number} of {len(troubles)}")
            until = time.monotonic() + (HELD_FULL if full else HELD_SHORT)
            networks.trouble(peer, what)
            program.emit(20)
            networks.all_arrived(program, *(set(networks.proxies) - {peer}))
            while time.monotonic() < until:
                program.emit(10)
            networks.was_felt(peer)
            networks.heal()
            if full:
                networks.all_arrived(program, peer)
        for peer in networks.proxies:  # all at once
            networks.trouble(peer, "silent")
        program.emit(100)
        networks.heal()
        networks.all_arrived(program, *networks.proxies)
        assert program.stop() == 0, program.told()
    networks.all_arrived(program, *SIGNALS)
    return program


def tell(row, networks, program, troubles):
    injected = Counter(peer for peer, _ in troubles)
    for signal in SIGNALS:
        arrived = networks.arrived(signal)
        row(
            6,
            f"network: {signal} over {'gRPC' if signal == networks.over_grpc else 'HTTP'}",
            injected=injected[signal] + 1,
            verdict=balance(program.reports.numbers, arrived, is_repeated=True),
        )
    verdict = judge(networks.url, program)
    row(6, "network: PostgreSQL", injected=injected["store"] + 1, verdict=verdict)


def test_what_a_back_end_rejects(tmp_path, row):
    """A partial success: rejected log records are counted, and not sent again."""
    require_collector()
    with Collector() as collector, Proxy(collector.http_address) as proxy:
        store = f"sqlite:///{tmp_path / 'events.db'}"
        order = Order(pause=0.001, configure={}, kinds=KINDS)
        environment = {
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{proxy.endpoint}/v1/logs",
            "OTEL_TRACES_EXPORTER": "none",
        }
        with running(store, order=order, environment=environment) as program:
            program.emit(20)
            proxy.answer_partial_success(1, "too old")
            wait_until(lambda: len(proxy.requests) > 3)
            proxy.mode = "pass"
            program.emit(20)
            taken = {n for request in proxy.requests for n in numbers_in(request.body)}
            acknowledged = set(program.reports.numbers)
            wait_until(lambda: acknowledged <= taken.union(numbers(collector.logs())))
            caught_up(store, program)
            assert program.stop() == 0, program.told()
        with Store(store) as opened:
            told = {loss.reason: (loss.count, loss.problem) for loss in opened.losses()}
    ((count, problem),) = [told.pop(REJECTED)]
    assert (problem, told) == ("too old", {})
    assert 0 <= len(proxy.requests) - count <= 1  # of the last the answer may have been cut off
    verdict = judge(store, program)
    row(6, "partial success", injected=len(proxy.requests), verdict=verdict)


def numbers(records):
    return [record.attributes["n"] for record in records]


def numbers_in(body):
    """Of the calls of which there are log records in a request."""
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                attributes = {pair.key: pair.value for pair in record.attributes}
                yield attributes["n"].int_value
