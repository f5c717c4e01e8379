"""Every key of [evaluate], its gate and its probe, and of [promotion]; schema.py tells what a table is. Data only."""

from thunder_train.config.evaluate import PROFILES
from thunder_train.config.fields import Table, real, switch, text, texts, whole

GATE: Table = {
    "command": texts(
        "an external gate, word by word: proposals in, verdicts out, as JSON lines (docs/gate.md); empty: the built-in "
        "policy of the keys below",
        default=[],
    ),
    "timeout_s": whole("longest silence of an external gate", "seconds", 1, 86_400, default=60),
    "preserved": texts("built-in: partitions whose rows stay as they are", default=["stable"]),
    "blocked": texts("built-in: partitions whose proposals are never taken", default=["novelty"]),
    "floor": whole("built-in: edits that any row may have", "code points", 0, 10_000, default=2),
    "relative": real(
        "built-in: edits that a row may have, if that is more", "share of its code points", 0.0, 10.0, default=0.2
    ),
}

PROBE: Table = {
    f"max_{what}": real(
        f"an adapter with more answers that {words} has collapsed", "share of rows", 0.0, 1.0, default=most
    )
    for what, words, most in (
        ("empty", "are empty", 0.05),
        ("pad", "hold pad or other control tokens", 0.0),
        ("loop", "repeat themselves", 0.05),
        ("copied", "copy the hypothesis", 1.0),
        ("wrong_script", "are in another script", 0.05),
        ("over_long", "do not end", 0.05),
    )
}

EVALUATE: Table = {
    "max_tokens": whole(
        "longest answer; 0: half as long again as the longest of the training rows", "tokens", 0, 65_536, default=0
    ),
    "batch_size": whole("rows scored at once", "rows", 1, 4096, default=8),
    "profile": text("the error rate that decides", allowed=[*PROFILES], default=PROFILES[0]),
    "bootstrap": whole("samples behind each interval", "samples", 100, 100_000, default=1000),
    "seed": whole("seed of these samples", "", 0, 2**31 - 1, default=0),
    "gate": {"type": "dict", "schema": GATE, "default": {}, "meta": {"help": "what judges each proposal"}},
    "probe": {"type": "dict", "schema": PROBE, "default": {}, "meta": {"help": "when answers count as collapsed"}},
}

PROMOTION: Table = {
    "min_rows": whole("test rows that must have been scored", "rows", 1, 2**31 - 1, default=500),
    "max_worse": whole("test rows that the gated adapter may make worse", "rows", 0, 2**31 - 1, default=0),
    "needs_witness": switch("every decision must carry a witness", default=True),
    "provenance": text('provenance that the dataset must declare; "" for any', default=""),
}
