"""Names of the files that stages hand to each other, below data/<dataset>/ and runs/<recipe>/."""

DATA = ("train.jsonl", "valid.jsonl", "test.jsonl", "manifest.json")
SCRIPTS = ("launch.sh", "evaluate.sh")
"""Rendered from templates/<name>.j2."""
ADAPTER = ("adapter/adapters.safetensors", "adapter/adapter_config.json")
MEASURED = ("preflight.json", "adapter/done.json", "metrics.jsonl", "eval.json")
"""What the report is made from."""
OUTPUTS = (
    "adapter/adapter_config.json",
    "adapter/adapters.safetensors",
    "adapter/done.json",
    "eval.json",
    "evaluate.sh",
    "hostfile.json",
    "launch.sh",
    "predictions.jsonl",
    "promotion.json",
)
"""Files of a run that are the same to the byte when the run is made again; the manifest lists them."""


def trained(num_iters: int, save_every: int) -> tuple[str, ...]:
    """What a training leaves: the final adapter, and those saved on the way, named by step as mlx-lm names them."""
    steps = range(save_every, num_iters + 1, save_every)
    saved = (f"adapter/{step:07d}_adapters.safetensors" for step in steps)
    return (*saved, *ADAPTER, "adapter/done.json", "metrics.jsonl", "timing.json")
