"""`doit fit:<recipe>`: it needs the model's config.json and no weights, and prints a table or JSON."""

import json

import pytest

from tests.helpers.project_copy import Copy
from thunder_train.launch import fit

GIGA = 10**9
REPORT = {
    "parameters": 4_600_000_000,
    "trainable_parameters": 1_703_936,
    "ranks": 2,
    "strategy": "tensor",
    "bytes": {"weights": 14 * GIGA, "adapter": 7_000_000, "optimizer": 14_000_000, "gradients": 14_000_000}
    | {"activations": 2 * GIGA, "peak": 16 * GIGA},
    "message_bytes": {"gradient": 6_815_772, "blocks": 500_000},
    "row_tokens": 512,
    "rows": None,
    "rows_unknown": "",
    "rows_per_step": 8,
    "passes": [{"sequences": 1, "width": 200}, {"sequences": 8, "width": 511}],
    "kept": None,
    "seconds_per_step": 1.234,
    "seconds_per_later_step": None,
    "seconds_in_float32": None,
    "not_measured": "",
    "slow": "",
    "device": "gpu",
    "usable_bytes": 12 * GIGA,
    "fits_16_gb_mac": False,
    "advice": "buy another Mac",
}


def test_the_table_says_what_does_not_fit() -> None:
    """
    The usable share is an assumption, so it stands beside the verdict.
    """
    rows = dict(fit.table(REPORT))

    assert "does not fit a 16 GB Mac; 12 GB of it, Metal's recommended working set, can be used" == rows["16 GB Mac"]
    assert "2 GB in passes of 8 x 511 tokens" == rows["activations"]
    assert "16 GB (2 ranks, tensor)" == rows["peak of a rank"]
    assert "500 kB a step" == rows["block messages"]
    expected = "about 1.2 s on this machine's gpu, messages not counted, for 8 rows of 512 tokens"
    assert expected == rows["a step"]


def test_ranks_with_the_whole_model_send_no_block_messages() -> None:
    """
    A row of zeros would only raise questions.
    """
    rows = dict(fit.table(REPORT | {"message_bytes": {"gradient": 10, "blocks": 0}}))

    assert "block messages" not in rows
    assert "10 bytes a step" == rows["gradient message"]


@pytest.mark.parametrize(("bytes_", "verdict"), [(2 * GIGA, "fits"), (9 * GIGA, "does not fit")])
def test_all_ranks_of_this_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch, bytes_: int, verdict: str) -> None:
    """
    Two ranks of 9 GB each fit a machine of 16 GB one by one, and not together. A Mac gives Metal two thirds.
    """
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 4_000_000, "SC_PAGE_SIZE": 4000}[name])
    monkeypatch.setattr("sys.platform", "linux")
    report = REPORT | {"rank_peak_bytes": [bytes_, bytes_]}

    rows = dict(fit.table(report | {"here": fit.here(report)}))
    assert f"{verdict}; 2 ranks need {2 * bytes_ // GIGA} GB of 16 GB" == rows["this machine"]
    monkeypatch.setattr("sys.platform", "darwin")
    assert 10_666_666_667 == fit.here(report)["usable_bytes"]


def test_the_rows_of_the_estimate_are_named() -> None:
    """
    Rows of max_seq_len tokens may need several times what the real rows need.
    """
    real = dict(fit.table(REPORT | {"row_tokens": 91, "rows": 1200}))["a step"]
    unknown = dict(fit.table(REPORT | {"rows_unknown": "data/x/train.jsonl: is not built"}))["a step"]

    assert real.endswith(" for 8 rows of 91 tokens, the mean of its 1,200 rows")
    assert unknown.endswith(" for 8 rows of 512 tokens: the rows are not known, data/x/train.jsonl: is not built")


def test_what_frozen_layers_keep_is_told_before_the_launch() -> None:
    """
    It takes memory that no framework counts, or room on a disk.
    """
    kept = {"layers": 26, "bytes": 87_200_000, "in_memory": True, "why_not": ""}
    report = REPORT | {"kept": kept, "seconds_per_later_step": 0.5, "rank_peak_bytes": [GIGA, GIGA]}
    rows = dict(fit.table(report))
    off = {"layers": 0, "bytes": 0, "in_memory": False, "why_not": "rows are read less than twice"}

    assert "the output of the first 26 is kept: 87.2 MB in memory, of all 2 ranks" == rows["frozen layers"]
    assert rows["a step"].startswith("about 1.2 s, 0.5 s after the first epoch, on this machine's gpu")
    assert 2 * GIGA + 87_200_000 == fit.here(report)["bytes"]
    assert 2 * GIGA == fit.here(report | {"kept": kept | {"in_memory": False}})["bytes"]
    in_file = dict(fit.table(REPORT | {"ranks": 1, "kept": kept | {"in_memory": False}}))
    assert "the output of the first 26 is kept: 87.2 MB in a file below .thunder" == in_file["frozen layers"]
    expected = "their output is not kept: rows are read less than twice"
    assert expected == dict(fit.table(REPORT | {"kept": off}))["frozen layers"]


def test_slow_weights_are_named_with_what_to_do() -> None:
    """
    A user who trains a 4-bit model on a CPU would wait for hours, and not know that float32 takes minutes.
    """
    slow = {"slow": "MLX multiplies 4-bit weights row by row on a CPU", "seconds_in_float32": 4.25}
    rows = dict(fit.table(REPORT | slow | {"seconds_per_step": None, "not_measured": "the probe is slow"}))

    expected = (
        "MLX multiplies 4-bit weights row by row on a CPU: about 4.2 s a step with float32 weights; for runs on a CPU"
    )
    assert f"{expected} make such with `.venv/bin/mlx_lm.convert --dequantize --dtype float32`" == rows["slow"]
    assert "not measured: the probe is slow; for 8 rows of 512 tokens" == rows["a step"]


@pytest.mark.ranks
@pytest.mark.slow
def test_fit_reports_on_a_recipe_that_was_never_built(fresh: Copy) -> None:
    """
    It comes before every other stage, and needs only the nano model's config, which it builds.
    """
    done = fresh.doit("fit:smoke", "--json")

    assert 0 == done.status, done.output
    assert ["model:nano", "fit:smoke"] == done.ran
    report = json.loads(done.output.splitlines()[-1])
    assert ("thunder.fit/1", 238_592, 31_744) == tuple(
        report[key] for key in ("schema", "parameters", "trainable_parameters")
    )
    assert report["fits_16_gb_mac"]
