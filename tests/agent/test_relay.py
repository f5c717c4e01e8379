"""Files from one host to another over loopback; real links are in tests/cluster."""

import hashlib
import socket
import time

import pytest

from thunder_train.agent import link, relay

KEY = "0" * 64


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a project that has two files, one of them longer than a part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project/model").mkdir(parents=True)
    (tmp_path / "project/model/big").write_bytes(BIG)
    (tmp_path / "project/empty").write_bytes(b"")
    (tmp_path / "project/secret").write_text("not to be had")
    return tmp_path


BIG = bytes(range(256)) * 10_000


def serve(**files):
    return relay.serve("127.0.0.1", KEY, files)["port"]


def fetch(port, key=KEY, **files):
    """files: name and the content it should have."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return relay.fetch("127.0.0.1", port, key, "other/incoming", hashes)


def test_files_arrive_byte_by_byte_under_the_names_they_were_offered_as(home):
    """
    On this machine a hub's model lies elsewhere than on a host.
    """
    told = fetch(serve(**{"a/b": "project/model/big", "c": str(home / "project/empty")}), **{"a/b": BIG, "c": b""})

    assert len(BIG) == told["bytes"]
    assert BIG == (home / "other/incoming/a/b").read_bytes()
    assert b"" == (home / "other/incoming/c").read_bytes()


@pytest.mark.parametrize("name", ["secret", "../project/secret", "/etc/hostname", "model/big\0"])
def test_only_what_was_named_is_served(home, name):
    """
    Whoever has the key for a model has it for nothing else of that machine.
    """
    port = serve(**{"model/big": "project/model/big"})
    with socket.create_connection(("127.0.0.1", port)) as peer:
        word = name.encode()
        challenge = link.receive(peer, relay.CHALLENGE_BYTES)
        peer.sendall(relay.NAME.pack(len(word)) + word + relay._proof(KEY.encode(), challenge, word))

        assert relay.REFUSED == relay.SIZE.unpack(link.receive(peer, relay.SIZE.size))[0]


def test_without_the_key_nothing_is_served(home):
    """
    A training link may be an office's network: others on it can reach the port.
    """
    told = fetch(serve(big="project/model/big"), key="1" * 64, big=BIG)

    assert {"error": "big was refused"} == told


def test_an_answer_of_yesterday_proves_nothing(home):
    """
    The key never crosses the link, and what does is worth something for one connection only.
    """
    port, said = serve(big="project/model/big"), []
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
        assert {"error": expected} == fetch(link.answering("127.0.0.1", half)["port"], big=b"x" * 1000)
        assert time.monotonic() - began < 5
        assert b"x" * 500 == (home / "other/incoming/big").read_bytes()


def test_what_breaks_off_takes_nothing_away_that_was_there(home):
    """
    rsync goes on from what it brought; a transfer of a second that fails must not cost an hour.
    """
    arrived = home / "other/incoming/big"
    arrived.parent.mkdir(parents=True)
    arrived.write_bytes(BIG[:1000])

    assert {"error": "big was refused"} == fetch(serve(), big=BIG)
    assert BIG[:1000] == arrived.read_bytes()


def test_another_file_than_the_wanted_one_is_not_taken(home):
    """
    A giver's disk may have rotted, or its file may be of last week: the right one comes from here.
    """
    assert {"error": "big is another file there"} == fetch(serve(big="project/model/big"), big=BIG[1:])
    assert [] == [path for path in (home / "other/incoming").rglob("*") if path.is_file()]


def test_without_an_address_nobody_listens():
    """
    To the system, none means any.
    """
    assert {"error": "no address to listen on"} == relay.serve("", KEY, {})
