"""Progress of a long read: told on a terminal only, and only when it takes long."""

import io

from thunder_train.core import console


class Terminal(io.StringIO):
    """Stands for stderr on a terminal."""

    def isatty(self):
        """It is one."""
        return True


def test_short_work_and_logs_show_nothing(monkeypatch):
    """
    A build that takes a second needs no bar, and a log file wants none.
    """
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)

        assert 10_000 == sum(1 for _ in console.counted(range(10_000), "data:x"))
        assert "" == stream.getvalue()


def test_long_work_tells_rows_and_rate(monkeypatch):
    """
    After two seconds somebody wonders whether it hangs.
    """
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(console, "PATIENCE_S", -1.0)

    assert 9000 == len(list(console.counted(range(9000), "data:x")))
    assert "data:x: 8,192 rows" in stream.getvalue()
