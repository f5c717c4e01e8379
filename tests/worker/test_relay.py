"""Files from one host to another over loopback; real links are in tests/cluster."""

import socket
import time

import pytest

from thunder_train.worker import link, relay

KEY = "0" * 64


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a project that has two files, one of them longer than a part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project/model").mkdir(parents=True)
    (tmp_path / "project/model/big").write_bytes(bytes(range(256)) * 10_000)
    (tmp_path / "project/empty").write_bytes(b"")
    (tmp_path / "project/secret").write_text("not to be had")
    return tmp_path


def serve(**files):
    return relay.serve("127.0.0.1", KEY, "project", files)["port"]


def fetch(port, *names, key=KEY):
    return relay.fetch("127.0.0.1", port, key, "other/incoming", list(names))


def test_files_arrive_byte_by_byte_under_the_names_they_were_offered_as(home):
    """
    On this machine a hub's model lies elsewhere than on a host.
    """
    port = relay.serve("127.0.0.1", KEY, "project", {"a/b": "model/big", "c": str(home / "project/empty")})["port"]
    told = fetch(port, "a/b", "c")

    assert 2_560_000 == told["bytes"]
    assert (home / "project/model/big").read_bytes() == (home / "other/incoming/a/b").read_bytes()
    assert b"" == (home / "other/incoming/c").read_bytes()


@pytest.mark.parametrize("name", ["secret", "../project/secret", "/etc/hostname", "model/big\0"])
def test_only_what_was_named_is_served(home, name):
    """
    Whoever has the key for a model has it for nothing else of that machine.
    """
    port = relay.serve("127.0.0.1", KEY, "project", {"model/big": "model/big"})["port"]
    with socket.create_connection(("127.0.0.1", port)) as peer:
        word = name.encode()
        challenge = link.receive(peer, relay.CHALLENGE_BYTES)
        peer.sendall(relay.NAME.pack(len(word)) + word + relay._proof(KEY.encode(), challenge, word))

        assert relay.REFUSED == relay.SIZE.unpack(link.receive(peer, relay.SIZE.size))[0]


def test_without_the_key_nothing_is_served(home):
    """
    A training link may be an office's network: others on it can reach the port.
    """
    told = fetch(serve(big="model/big"), "big", key="1" * 64)

    assert {"error": "big was refused"} == told


def test_an_answer_of_yesterday_proves_nothing(home):
    """
    The key never crosses the link, and what does is worth something for one connection only.
    """
    port, said = serve(big="model/big"), []
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            challenge = link.receive(peer, relay.CHALLENGE_BYTES)
            said = said or [relay.NAME.pack(3) + b"big" + relay._proof(KEY.encode(), challenge, b"big")]
            peer.sendall(said[0])
            size = relay.SIZE.unpack(link.receive(peer, relay.SIZE.size))[0]

    assert relay.REFUSED == size


def test_a_giver_that_falls_silent_or_goes_is_an_error_in_time(home, monkeypatch):
    """
    A cable was pulled: the taker says so, and gets the rest from elsewhere.
    """
    monkeypatch.setattr(relay, "SILENT_S", 0.3)
    for ends, expected in ((False, "timed out"), (True, "the other side closed the connection")):

        def half(peer, ends=ends):
            peer.sendall(bytes(relay.CHALLENGE_BYTES))
            link.receive(peer, relay.NAME.size + len("big") + 32)
            peer.sendall(relay.SIZE.pack(1000) + b"x" * 500)
            time.sleep(0 if ends else 1)

        began = time.monotonic()
        assert {"error": expected} == fetch(link.answering("127.0.0.1", half)["port"], "big")
        assert time.monotonic() - began < 5
        assert b"x" * 500 == (home / "other/incoming/big").read_bytes()
