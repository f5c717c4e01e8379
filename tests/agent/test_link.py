"""A link measured over loopback; real links are in tests/cluster."""

import errno
import os
import socket
import threading
import time

import pytest

from thunder_train.agent import link


def test_a_listener_tells_latency_and_bandwidth():
    """
    The seed's "Mac4 -> Mac5 0.52 ms", and how wide the link is.
    """
    told = link.measure("127.0.0.1", link.listen("127.0.0.1")["port"])

    assert "127.0.0.1" == told["source"]
    assert 0 < told["latency_ms"] < 100
    assert told["bytes_per_second"] > 1_000_000


def test_it_listens_on_that_address_alone():
    """
    Nothing of ours is open towards the Wi-Fi.
    """
    port = link.listen("127.0.0.1")["port"]
    with socket.socket() as other, pytest.raises(OSError, match=r"refused|reach|assign|timed"):
        other.connect(("127.0.0.2", port))


def test_an_address_of_another_machine_cannot_be_listened_on():
    """
    192.0.2.0/24 is for documentation, and no interface has 192.0.2.99.
    """
    assert {"error": os.strerror(errno.EADDRNOTAVAIL)} == link.listen("192.0.2.99")


def test_nobody_there_is_an_error_not_a_crash():
    """
    The table tells it in the row of that link.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    assert {"error": "Connection refused"} == link.measure("127.0.0.1", port)


def test_a_peer_that_says_nothing_is_given_up(monkeypatch):
    """
    A link that swallows packets must not hang the preflight.
    """
    monkeypatch.setattr(link, "ANSWER_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        start_s = time.monotonic()
        told = link.measure("127.0.0.1", server.getsockname()[1])

    assert {"error": "no answer within 0.2 s"} == told
    assert time.monotonic() - start_s < 2


def test_a_slow_link_is_measured_for_two_seconds_and_no_more(monkeypatch):
    """
    16 MB at 1 Mbit/s would take two minutes; the receiver counts what came in its time.
    """
    monkeypatch.setattr(link, "MESSAGE_WITHIN_S", 0.2)
    monkeypatch.setattr(link, "MESSAGE_BYTES", 10**12)
    port = link.listen("127.0.0.1")["port"]
    start_s = time.monotonic()

    assert link.measure("127.0.0.1", port)["bytes_per_second"] > 0
    assert time.monotonic() - start_s < 2


def test_a_connection_cut_in_the_middle_is_an_error():
    """
    A host that dies while it is measured.
    """
    server = socket.create_server(("127.0.0.1", 0))

    def cut() -> None:
        peer, _ = server.accept()
        peer.recv(1)
        peer.close()

    threading.Thread(target=cut, daemon=True).start()
    told = link.measure("127.0.0.1", server.getsockname()[1])
    server.close()

    assert {"error": "the other side closed the connection"} == told
