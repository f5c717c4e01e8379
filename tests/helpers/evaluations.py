"""Small predictions and settings of an evaluation."""

from typing import Any

from thunder_train.config.evaluate import Evaluate, Gate, Probe

LOSSES = {"base": {"valid": {"loss": 5.0}}, "adapter": {"valid": {"loss": 4.0}}, "environment": {"mlx": "0.32.4"}}
GATE = {"command": (), "timeout_s": 60, "preserved": ("stable",), "blocked": ("novelty",), "floor": 2, "relative": 0.2}
PROBE = {"empty": 0.05, "pad": 0.0, "loop": 0.05, "copied": 1.0, "wrong_script": 0.05, "over_long": 0.05}
EVALUATE = {"max_tokens": 0, "batch_size": 8, "profile": "cer-codepoint-nfc-pooled", "bootstrap": 100, "seed": 0}


def limits(**given: float) -> Probe:
    """Limits of [evaluate.probe], the defaults unless given; empty=0.5 sets max_empty."""
    return Probe(**{f"max_{name}": share for name, share in (PROBE | given).items()})


def settings(gate: dict[str, Any] | None = None, probe: Probe | None = None, **given: Any) -> Evaluate:
    """An [evaluate] table, the defaults (but fewer bootstrap samples) unless given."""
    return Evaluate(**EVALUATE | {"gate": Gate(**GATE | (gate or {})), "probe": probe or limits()} | given)


def prediction(asr: str, reference: str, base: str, adapter: str, partition: str = "boundary") -> dict[str, Any]:
    """One row of predictions.jsonl; its id joins its texts."""
    texts = {"asr_text": asr, "reference_text": reference, "base": base, "adapter": adapter}
    ends = {"base_finish": "stop", "adapter_finish": "stop", "base_special": 0, "adapter_special": 0}
    name = f"{asr}-{reference}"
    return {"id": name, "group": name, "partition": partition, "source": "in.json", "witness": {}} | texts | ends
