"""A link measured over loopback; links between hosts are in tests/system/cluster."""

import errno
import os
import socket
import threading
import time

import pytest

from thunder_train.agent import link


def test_latency_and_bandwidth_are_measured() -> None:
    """
    The seed's "Mac4 -> Mac5 0.52 ms", and the bandwidth.
    """
    figures = link.measure("127.0.0.1", link.listen("127.0.0.1")["port"])

    assert "127.0.0.1" == figures["source"]
    assert 0 < figures["latency_ms"] < 100
    assert figures["bytes_per_second"] > 1_000_000


def test_it_listens_on_that_address_alone() -> None:
    """
    No port is open on the Wi-Fi.
    """
    port = link.listen("127.0.0.1")["port"]
    with socket.socket() as other, pytest.raises(OSError, match=r"refused|reach|assign|timed"):
        other.connect(("127.0.0.2", port))


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    """
    192.0.2.0/24 is reserved for documentation, so no interface has 192.0.2.99.
    """
    assert {"error": os.strerror(errno.EADDRNOTAVAIL)} == link.listen("192.0.2.99")


def test_a_closed_port_is_an_error_not_a_crash() -> None:
    """
    The preflight shows it in the row of that link.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    assert {"error": "Connection refused"} == link.measure("127.0.0.1", port)


def test_a_silent_peer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A link that swallows packets must not hang the preflight.
    """
    monkeypatch.setattr(link, "ANSWER_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        start_s = time.monotonic()
        figures = link.measure("127.0.0.1", server.getsockname()[1])

    assert {"error": "no answer within 0.2 s"} == figures
    assert time.monotonic() - start_s < 2


def test_a_slow_link_is_measured_for_two_seconds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    16 MB at 1 Mbit/s would take two minutes; the receiver counts what arrives in two seconds.
    """
    monkeypatch.setattr(link, "MESSAGE_WITHIN_S", 0.2)
    monkeypatch.setattr(link, "MESSAGE_BYTES", 10**12)
    port = link.listen("127.0.0.1")["port"]
    start_s = time.monotonic()

    assert link.measure("127.0.0.1", port)["bytes_per_second"] > 0
    assert time.monotonic() - start_s < 2


def test_a_connection_cut_in_the_middle_is_an_error() -> None:
    """
    A host that dies during the measurement.
    """
    server = socket.create_server(("127.0.0.1", 0))

    def cut() -> None:
        peer, _ = server.accept()
        peer.recv(1)
        peer.close()

    threading.Thread(target=cut, daemon=True).start()
    figures = link.measure("127.0.0.1", server.getsockname()[1])
    server.close()

    assert {"error": "the other side closed the connection"} == figures


def test_without_an_address_it_does_not_listen() -> None:
    """
    The system would listen on every address.
    """
    assert {"error": "no address to listen on"} == link.listen("")
