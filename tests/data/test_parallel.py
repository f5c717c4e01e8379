"""Several processes read one source: the same files and the same errors as of one, and nothing that outlives them."""

import gzip
import json
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import LETTERS, write
from tests.helpers.material import build, dataset, source
from thunder_train import ThunderError
from thunder_train.data import asr_rows, audit, builder, collect, packed, parallel

PROMPT = "{{ partition }} {{ telemetry.speaker_id | default('-') }} {{ hypotheses | join(' ') }} {{ asr_text }}"
pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux forks")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of any size are read in parts, and a message is sent of each second row.

    Threads that earlier tests left waiting, such as the monitor of tqdm, do not count.
    """
    others = threading.active_count() - 1
    monkeypatch.setattr(parallel, "active_count", lambda: threading.active_count() - others)
    monkeypatch.setattr(parallel, "LEAST", 1)
    monkeypatch.setattr(parallel, "STEP", 2)


def outcome(folder: Path, processes: int, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    """All files of a dataset that so many processes build, or its error."""
    monkeypatch.setattr(parallel, "processors", lambda: processes)
    out = folder / f"out{processes}"
    try:
        build(dataset(**{"max_dropped": 1.0} | given), folder, out)
    except ThunderError as error:
        return str(error)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def assert_same(folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    """That 1 to 4 processes give the same outcome, which it returns."""
    first = outcome(folder, 1, monkeypatch, **given)
    for processes in (2, 3, 4):
        assert first == outcome(folder, processes, monkeypatch, **given)
    return first


def text(rng: random.Random) -> str:
    """One to three words."""
    return " ".join("".join(rng.choices(LETTERS, k=rng.randint(2, 4))) for _ in range(rng.randint(1, 3)))


FAULTS: dict[str, Callable[[random.Random, dict[str, Any]], Any]] = {
    "unmatched": lambda rng, row: row | {"feat_id": f"x{rng.random()}"},
    "keyless": lambda rng, row: row | {"feat_id": ""},
    "silent": lambda rng, row: row | {"asr_text": None, "hypotheses": []},
    "invisible": lambda rng, row: row | {"asr_text": f" {row['asr_text']}\u200b"},
    "stray": lambda rng, row: row | {"asr_text": row["asr_text"] + rng.choice("ab")},
    "own split": lambda rng, row: row | {"split": rng.choice(["train", "test", "fold1", "fold2", "fold3"])},
    "many splits": lambda rng, row: row | {"split": f"fold{rng.randint(0, 9)}"},
    "unused": lambda rng, row: row | {rng.choice("abc"): 1, "telemetry": {"wer": 1, "speaker_id": "z"}},
    "n-best": lambda rng, row: row | {"hypotheses": [row["asr_text"], text(rng)]},
    "leak": lambda rng, row: row | {"telemetry": {"speaker_id": "REFERENCE"}},
    "group": lambda rng, row: row | {"video_id": rng.choice("vw")},
    "stable": lambda rng, row: row | {"partition": "stable"},
    "twice": lambda rng, row: row | {"feat_id": "f1"},
    "type": lambda rng, row: row | {"asr_text": 5},
    "lacking": lambda rng, row: {"feat_id": row["feat_id"]},
}
"""What may be odd, or wrong, about a prediction."""
ENDS = (b"\n", b"\r\n", b"\n\n", b"\n \n", b"{\n", b"[1]\n", b"\xff\n")
"""What may stand between two lines; the last three are errors."""


def prediction_files(rng: random.Random, references: list[dict[str, Any]]) -> list[bytes]:
    """One to three files of predictions, with a few kinds of faults."""
    faults = rng.sample([*FAULTS][:12], rng.randint(0, 4)) + (
        rng.sample([*FAULTS][12:], 1) if rng.random() < 0.2 else []
    )
    ends = rng.sample(ENDS[:4], 2) + ([rng.choice(ENDS[4:])] if rng.random() < 0.2 else [])
    files = [b"" for _ in range(rng.randint(1, 3))]
    for reference in rng.sample(references, len(references) - 2):
        row = {
            "feat_id": reference["feat_id"],
            "asr_text": text(rng),
            "partition": rng.choice(["p", "q"]),
            "ctc_confidence": 0.5,
        }
        if faults and rng.random() < 0.3:
            row = FAULTS[rng.choice(faults)](rng, row)
        line = json.dumps(row, ensure_ascii=False).replace("REFERENCE", reference["reference_text"]).encode()
        number = rng.randrange(len(files))
        files[number] += line + (b"\n" if rng.random() < 0.8 else rng.choice(ends))
    files[0] = rng.choice([b"", b"\xef\xbb\xbf"]) + files[0]
    files[-1] = rng.choice([files[-1], files[-1].rstrip(), files[-1] + b"\n" * 2000])
    return files


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_any_number_of_processes_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """
    A manifest that is committed on one machine comes out again on another, which has other processors.
    """
    rng = random.Random(seed)  # noqa: S311  (rows, not secrecy)
    references: list[dict[str, Any]] = [
        {"feat_id": f"f{number}", "reference_text": "" if rng.random() < 0.05 else text(rng)} for number in range(24)
    ]
    write(tmp_path / "prompt.j2", PROMPT)
    write(tmp_path / "r.jsonl", references)
    for number, content in enumerate(prediction_files(rng, references)):
        write(tmp_path / f"p{number}.jsonl", content)
    rows = source(kind="rows", path="p*.jsonl", references="r.jsonl", fields={}, telemetry=())

    assert_same(tmp_path, monkeypatch, sources=(rows,), orthography=rng.choice(["", "bridge-toneless"]))


FIRST_AND_LAST: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one reference, two predictions": (
        {"feat_id": "f5"},
        {"feat_id": "f5"},
        "p.jsonl:6, 12: feat_id 'f5' is also at p.jsonl:1; a join key must be unique",
    ),
    "no reference, two predictions": (
        {"feat_id": "x"},
        {"feat_id": "x"},
        "p.jsonl:12: feat_id 'x' is also at p.jsonl:1; a join key must be unique",
    ),
    "errors": (
        {"asr_text": 1},
        {"asr_text": 1},
        "p.jsonl:1, 12: asr_text is a number, not a text; write it in quotes",
    ),
    "blanks": (
        {"asr_text": "ߊ "},
        {"asr_text": " ߋ"},
        '"what": "texts with blanks around them, which are removed", "count": 2',
    ),
    "stray letters": ({"asr_text": "a"}, {"asr_text": "a"}, '"used": 2'),
    "static text": (
        {"telemetry": {"speaker_id": "ߞ"}, "reference_text": "ߞ"},
        {"telemetry": {"speaker_id": "ߞ"}},
        "manifest.json",
    ),
}
"""Case -> what is odd about the first row, about the last one, and what the error or audit.json says of both."""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", FIRST_AND_LAST)
def test_what_only_rows_of_several_processes_show_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """
    A key that two processes use once each is used twice.
    """
    rng = random.Random(1)  # noqa: S311  (rows, not secrecy)
    first, last, shown = FIRST_AND_LAST[case]
    rows = [{"feat_id": f"f{n}", "asr_text": text(rng), "reference_text": text(rng)} for n in range(12)]
    rows[0], rows[-1] = rows[0] | first, rows[-1] | last
    write(tmp_path / "prompt.j2", PROMPT)
    write(
        tmp_path / "r.jsonl",
        [{"feat_id": f"f{n}", "reference_text": row["reference_text"]} for n, row in enumerate(rows)],
    )
    write(tmp_path / "p.jsonl", [{k: v for k, v in row.items() if k != "reference_text"} for row in rows])
    joined = source(kind="rows", path="p.jsonl", references="r.jsonl", fields={}, telemetry=())

    seen = assert_same(tmp_path, monkeypatch, sources=(joined,))

    assert shown in (seen if isinstance(seen, str) else f"{[*seen]} {seen['audit.json'].decode()}")


@pytest.mark.usefixtures("small")
def test_many_words_for_splits_are_counted_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first five words are counted one by one, whichever process meets them first.
    """
    given = pair_source(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    write(tmp_path / "p.jsonl", [row | {"split": f"fold{n % 7}"} for n, row in enumerate(rows)])

    assert b", others (" in assert_same(tmp_path, monkeypatch, **given)["manifest.json"]


@pytest.mark.usefixtures("small")
def test_files_of_a_folder_say_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The names of files are known to the process that reads a part of one.
    """
    rng = random.Random(0)  # noqa: S311  (rows, not secrecy)
    write(tmp_path / "prompt.j2", PROMPT)
    for name in ("train", "validation", "test"):
        rows = [{"id": n, "asr_text": text(rng), "reference_text": text(rng)} for n in range(9)]
        write(tmp_path / f"d/{name}.jsonl", rows)
    folder = source(kind="rows", path="d", fields={}, telemetry=())

    files = assert_same(tmp_path, monkeypatch, sources=(folder,), orthography="")

    assert {"train": 9, "valid": 9, "test": 9} == {
        name: each["rows"] for name, each in json.loads(files["manifest.json"])["splits"].items()
    }


@pytest.mark.usefixtures("small")
def test_sources_are_read_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a second source adds to rows, counts and columns follows on what the first gave.
    """
    rng = random.Random(0)  # noqa: S311  (rows, not secrecy)
    for name in "ab":
        rows = [{"id": number, "asr_text": text(rng), "reference_text": text(rng)} for number in range(9)]
        write(tmp_path / f"{name}.jsonl", rows)
    write(
        tmp_path / "n.jsonl",
        [{"audio_filepath": f"{number}.wav", "text": text(rng), "pred_text": text(rng)} for number in range(9)],
    )
    write(tmp_path / "c.jsonl", [{"text": text(rng)} for _ in range(9)])
    write(tmp_path / "prompt.j2", PROMPT)
    sources = (
        source(kind="rows", path="a.jsonl", fields={}, telemetry=()),
        source(kind="text", path="c.jsonl", fields={}, telemetry=()),
        source(kind="nemo", path="n.jsonl", fields={}, telemetry=()),
        source(kind="rows", path="b.jsonl", fields={}, telemetry=()),
    )

    files = assert_same(tmp_path, monkeypatch, sources=sources, orthography="")

    assert 36 == sum(each["rows"] for each in json.loads(files["manifest.json"])["splits"].values())


def pair_source(folder: Path, count: int = 20) -> dict[str, Any]:
    """A dataset of rows with both texts in p.jsonl."""
    rng = random.Random(0)  # noqa: S311  (rows, not secrecy)
    write(folder / "prompt.j2", "{{ asr_text }}")
    write(folder / "p.jsonl", [{"id": n, "asr_text": text(rng), "reference_text": text(rng)} for n in range(count)])
    return {"sources": (source(kind="rows", path="p.jsonl", fields={}, telemetry=()),), "orthography": ""}


def nothing_runs() -> bool:
    """Whether no process of a reading is left; a helper that multiprocessing started for an earlier test is none."""
    return not multiprocessing.active_children()


@pytest.mark.usefixtures("small")
def test_an_error_of_a_template_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first row that a template cannot show may be read last, by another process.
    """
    given = pair_source(tmp_path)
    write(tmp_path / "prompt.j2", "{{ 1 / (asr_text | length - 100) }}")
    rows = (tmp_path / "p.jsonl").read_text().splitlines()
    rows[3] = json.dumps({"id": "x", "asr_text": "a" * 100, "reference_text": "b"})
    write(tmp_path / "p.jsonl", "\n".join([*rows, rows[3]]))

    assert assert_same(tmp_path, monkeypatch, **given).startswith("prompt.j2: row p:x: division by zero; ")


@pytest.mark.usefixtures("small")
def test_a_killed_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where memory is short, Linux ends a process without a word.
    """
    monkeypatch.setattr(parallel, "_collected", lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    assert (
        "p.jsonl: a process that read its rows was ended by signal 9; free memory, or use one processor, as with "
        "`taskset -c 0 ./doit`"
    ) == outcome(tmp_path, 3, monkeypatch, **pair_source(tmp_path))
    assert nothing_runs()


@pytest.mark.usefixtures("small")
def test_an_interrupt_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ctrl-C arrives while this process waits for the others, which ignore it.
    """

    def interrupted(items: Iterable[Any]) -> Iterator[Any]:
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "processors", lambda: 3)
    given = dataset(**pair_source(tmp_path))

    with pytest.raises(KeyboardInterrupt):
        builder.build(given, tmp_path, tmp_path / "out", "", audit.build, interrupted)
    assert nothing_runs()


def test_a_process_ends_when_its_parent_has_gone(tmp_path: Path) -> None:
    """
    After kill -9 nobody would end it: it would read on, and hold the disk that its file fills.
    """
    given = dataset(**pair_source(tmp_path, parallel.STEP + 1))
    context = multiprocessing.get_context("fork")
    with collect.LineSpool(tmp_path) as lines, collect.LineSpool(tmp_path) as decision_lines:
        collected = collect.Collected(given, tmp_path, lines, decision_lines)
        pairs = asr_rows.opened(given.sources[0], tmp_path, collected.ledger)
        whole = packed.Part(0, (tmp_path / "p.jsonl").stat().st_size)
        share = parallel._Share([("p.jsonl", whole)], lines, decision_lines)
        pipe, its_end = context.Pipe(duplex=False)
        job = parallel._Job(pairs, given.sources[0], collected)
        child = context.Process(target=parallel._collect, args=(job, share, its_end, [pipe]))
        child.start()
        pipe.close()
        its_end.close()
        child.join(20)

    assert child.exitcode == 0


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Rows wait on disk, and the command words what the system says.
    """

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collect.LineSpool, "add", full)

    with pytest.raises(OSError, match="No space left on device"):
        outcome(tmp_path, 2, monkeypatch, **pair_source(tmp_path))
    assert nothing_runs()


@pytest.mark.usefixtures("small")
def test_the_counter_sees_the_rows_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A count of a part of the rows would promise an end that is far away.
    """
    seen: list[Any] = []
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    given = dataset(**pair_source(tmp_path, 40))

    builder.build(given, tmp_path, tmp_path / "out", "", audit.build, lambda items: map(seen.append, items))

    assert 40 - 4 <= len(seen) <= 40


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", ["thread", "gz", "list", "small"])
def test_one_process_reads_what_cannot_be_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """
    A packed file, or a list, has no place where a reader could start; a thread may hold a lock for ever after a fork.
    """
    given, done = pair_source(tmp_path), threading.Event()
    content = (tmp_path / "p.jsonl").read_bytes()
    if case == "gz":
        write(tmp_path / "p.jsonl", gzip.compress(content))
    elif case == "list":
        write(tmp_path / "p.jsonl", b"[" + content.strip().replace(b"\n", b",\n") + b"]")
    elif case == "small":
        monkeypatch.setattr(parallel, "LEAST", len(content) + 1)
    else:
        threading.Thread(target=done.wait, args=(20,)).start()
    monkeypatch.delattr(parallel, "_collect")

    assert "manifest.json" in outcome(tmp_path, 2, monkeypatch, **given)
    done.set()
