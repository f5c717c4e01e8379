"""Reads all sources of a dataset: big files of ASR rows with several processes, each some lines of the predictions.

Input: an empty `Collected`.  Output: the rows, notes and problems that one process gives, to the byte.

The processes are forked when the references are held, and send what they collected; the lines of rows wait in files
that both have. A process that meets a problem gives up, and then this one reads the source as if there were no others:
so the problems are the same too. Only on Linux: on macOS a fork is unsafe once a system library runs a thread.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from threading import active_count
from typing import NamedTuple

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.core import process
from thunder_train.data import formats, json_rows, packed, sources
from thunder_train.data.asr_rows import Pairs
from thunder_train.data.collect import Collected, LineSpool, Watch
from thunder_train.data.readers import Reader
from thunder_train.data.rows import Row

LEAST = 2**24
"""Bytes of predictions from which several processes take less time than one."""
MOST = 4
"""Most processes: each takes memory, and what this one does before and after them soon takes most of the time."""
STEP = 4096
"""Rows between two messages of a process."""


class _Job(NamedTuple):
    """What is read, and by what."""

    pairs: Pairs
    source: Source
    collected: Collected


class _Share(NamedTuple):
    """What one process reads: parts of files; and where it puts the lines of its rows."""

    parts: list[tuple[str, packed.Part]]
    lines: LineSpool
    decision_lines: LineSpool


class _Result(NamedTuple):
    """What a process sends at its end. counts, unused: of each file as a Reader has them; used, unmatched: as Pairs."""

    collected: Collected
    counts: Counter[str]
    unused: dict[str, Counter[str]]
    used: bytes
    unmatched: list[str]


def read(collected: Collected, watch: Watch) -> None:
    """Read all sources of a dataset."""
    for source in collected.dataset.sources:
        folder = collected.places[source].folder
        pairs = sources.pairs(source, folder, collected.ledger)
        if pairs and _is_read_in_parts(_Job(pairs, source, collected), watch):
            continue
        all_sources = collected.dataset.sources
        if pairs:
            rows = sources.named(pairs.rows(), source, folder, all_sources)
        else:
            rows = sources.read(source, folder, collected.ledger, all_sources)
        collected.take(watch(rows), source)
    collected.finish()


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _is_read_in_parts(job: _Job, watch: Watch) -> bool:
    """Whether several processes have read the source. If not, nothing of it was collected."""
    pairs, collected = job.pairs, job.collected
    shared_out = _parts(pairs, min(MOST, processors()))
    with contextlib.ExitStack() as stack:
        spools = [map(stack.enter_context, collected.new_spools()) for _ in shared_out]
        shares = [_Share(parts, *spool) for parts, spool in zip(shared_out, spools, strict=True)]
        results = _results(job, shares, watch) if shares else []
        used = _used(results)
        counts = sum((result.counts for result in results), Counter[str]())
        if used is None or not all(counts[path] for path in pairs.predictions):
            return False
        for path in pairs.predictions:
            reader = Reader(path, pairs.root)
            reader.count = counts[path]
            reader.unused = sum((result.unused.get(path, Counter()) for result in results), Counter[str]())
            reader.finish(pairs.ledger)
        for share, result in zip(shares, results, strict=True):
            collected.merge(result.collected, share.lines, share.decision_lines)
    pairs.finish(used)
    return True


def _parts(pairs: Pairs, processes: int) -> list[list[tuple[str, packed.Part]]]:
    """What each process reads, in order and alike in bytes; [] if one process shall read all."""
    files, root = pairs.predictions, pairs.root
    is_alone = active_count() == 1  # a thread could hold a lock, which nobody would release in a child
    if processes < 2 or not is_alone or not all(_is_divisible(pairs, path) for path in files):
        return []
    sizes = [(root / path).stat().st_size for path in files]
    if sum(sizes) < LEAST:
        return []
    cuts = [(0, 0)]
    for number in range(1, processes):
        file, offset = 0, sum(sizes) * number // processes
        while offset >= sizes[file]:
            file, offset = file + 1, offset - sizes[file]
        cuts.append((file, packed.next_line(files[file], root, offset) if offset else 0))
    shared_out = []
    for (first, start), (last, end) in itertools.pairwise([*cuts, (len(files) - 1, sizes[-1])]):
        ranges = [
            (file, start * (file == first), end if file == last else sizes[file]) for file in range(first, last + 1)
        ]
        shared_out.append([(files[file], packed.Part(*span)) for file, *span in ranges if span[0] < span[1]])
    return shared_out


def _is_divisible(pairs: Pairs, path: str) -> bool:
    """Whether a file holds a row a line, as it is."""
    reader = pairs.reader(path)
    return reader.form == formats.JSON and reader.layout == json_rows.LINES and packed.is_plain(path, pairs.root)


def _used(results: Sequence[_Result]) -> bytes | None:
    """Which references any process used; None if several used one, or one key, or there is no result."""
    used = 0
    for result in results:
        more = int.from_bytes(result.used)
        if used & more:
            return None
        used |= more
    unmatched = [key for result in results for key in result.unmatched]
    return used.to_bytes(len(results[0].used)) if results and len(unmatched) == len(set(unmatched)) else None


def _results(job: _Job, shares: Sequence[_Share], watch: Watch) -> list[_Result]:
    """What each process sends; [] as soon as one gives up. No process outlives this."""
    import numpy  # noqa: F401  (here, so that not every process takes a tenth of a second for it)

    context, children = multiprocessing.get_context("fork"), dict[Connection, ForkProcess]()
    try:
        for share in shares:
            pipe, its_end = context.Pipe(duplex=False)
            children[pipe] = context.Process(target=_collect, args=(job, share, its_end, [*children, pipe]))
            with warnings.catch_warnings(action="ignore"):  # of threads: those of BLAS wait, and hold no lock
                children[pipe].start()
            its_end.close()
        results: dict[Connection, _Result | None] = {}
        for _ in watch(_messages(job, children, results)):
            pass
        return [result for result in map(results.get, children) if result] if all(results.values()) else []
    finally:
        for pipe, child in children.items():
            pipe.close()
            if child.pid:
                child.kill()
                child.join()


def _messages(
    job: _Job, children: Mapping[Connection, ForkProcess], results: dict[Connection, _Result | None]
) -> Iterator[None]:
    """An item for each row that a process has read, until all have sent their results or one gives up."""
    while len(results) < len(children):
        for pipe in filter(wait(children.keys() - results.keys()).__contains__, children):
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                children[pipe].join()
                what = f"a process that read its rows {process.failure(children[pipe].exitcode or 0)}"
                hint = "free memory, or use one processor, as with `taskset -c 0 ./doit`"
                raise ThunderError(what, job.source.path, hint) from None
            if isinstance(message, int):
                yield from itertools.repeat(None, message)
                continue
            results[pipe] = message
            if message is None:
                return


def _collect(job: _Job, share: _Share, pipe: Connection, others: Sequence[Connection]) -> None:
    """What a process does: it sends numbers of rows, then a result, or None if it gives up."""
    for number in (signal.SIGINT, signal.SIGHUP):  # of the terminal, for all: the parent ends this one
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # so that a message fails when the parent is gone, which ends this one
        other.close()
    try:
        try:
            result = _collected(job, share, pipe)
        except Exception:  # whatever it is, the parent meets it again when it reads the rows itself
            result = None
        pipe.send(result)
    finally:
        os._exit(0)


def _collected(job: _Job, share: _Share, pipe: Connection) -> _Result | None:
    pairs, parent = job.pairs, job.collected
    own = Collected(parent.dataset, parent.root, share.lines, share.decision_lines, parent.places)
    pairs.ledger = own.ledger
    counts, unused = Counter[str](), dict[str, Counter[str]]()
    for path, part in share.parts:
        reader = pairs.reader(path)
        reader.part = part
        rows = sources.named(pairs.pairs(reader), job.source, pairs.root, parent.dataset.sources)
        own.take(_told(rows, reader, pipe), job.source)
        if reader.problems.first:
            return None
        counts[path], unused[path] = reader.count, reader.unused
    return None if own.columns.has_too_many_words else _Result(own, counts, unused, pairs.used(), pairs.unmatched())


def _told(rows: Iterator[Row], reader: Reader, pipe: Connection) -> Iterator[Row]:
    """The rows; the parent hears of each STEP of them. They end at a problem."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % STEP == 0:
            if reader.problems.first:
                return
            pipe.send(STEP)
