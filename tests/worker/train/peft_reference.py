"""The training of test_against_peft in torch, transformers and PEFT: run by a Python that has them, on one folder.

python peft_reference.py FOLDER

Reads of FOLDER base/ (config and weights in float32), start.safetensors (the adapter before the first step, with the
worker's names) and job.json; writes end.safetensors and steps.json. Nothing of the project is imported: loss,
schedule and clipping are stated again here. A row is a forward pass of its own, so nothing is padded or packed.
"""

import json
import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

PARTS = {
    "lora_A.default.weight": "lora_a",
    "lora_B.default.weight": "lora_b",
    "lora_magnitude_vector.default.weight": "m",
}
"""The end of a parameter's name in PEFT -> in the worker. A and B are transposed."""
FIXED = {
    "gemma3_text": {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        }
    }
}
"""What mlx-lm assumes where a config.json does not say it."""


def main(folder):
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(1)
    model = adapted(folder, job)
    named = {ours(name): (leaf, name) for name, leaf in model.named_parameters() if leaf.requires_grad}
    start = load_file(folder / "start.safetensors")
    if start.keys() != named.keys():
        raise SystemExit(f"PEFT trains other tensors: {sorted(start.keys() ^ named.keys())}")
    with torch.no_grad():
        for name, (leaf, theirs) in named.items():
            leaf.copy_(turned(start[name], theirs))
    steps = train(model, [leaf for leaf, _ in named.values()], job)
    (folder / "steps.json").write_text(json.dumps(steps))
    end = {name: turned(leaf.detach(), theirs).contiguous() for name, (leaf, theirs) in named.items()}
    save_file(end, folder / "end.safetensors")


def adapted(folder, job):
    """The base with PEFT's adapter."""
    config = json.loads((folder / "base" / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=torch.float32, attn_implementation="eager", **FIXED.get(config["model_type"], {})
    )
    kinds = getattr(model.config, "layer_types", None) or []
    pattern = config.get("sliding_window_pattern", 0)
    if pattern and [kind == "full_attention" for kind in kinds] != [not (i + 1) % pattern for i in range(len(kinds))]:
        raise SystemExit(f"other layers have a sliding window: {kinds}")
    lora = LoraConfig(
        r=job["rank"],
        lora_alpha=job["scale"] * job["rank"],
        target_modules=job["modules"],
        use_dora=job["kind"] == "dora",
        lora_dropout=0.0,
        bias="none",
    )
    return get_peft_model(model, lora)


def ours(name):
    """The worker's name of one of PEFT's parameters."""
    end = next(end for end in PARTS if name.endswith(end))
    return name.removeprefix("base_model.model.").removesuffix(end) + PARTS[end]


def turned(tensor, theirs):
    """A tensor in the other one's layout."""
    return tensor.reshape(-1) if "magnitude" in theirs else tensor.T


def train(model, parameters, job):
    """Train; of each step the mean loss of its targets, and the norm of that mean's gradient before clipping."""
    optimizer = torch.optim.AdamW(parameters, lr=job["learning_rate"], weight_decay=job["weight_decay"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, job))
    model.train()
    losses, norms = [], []
    for rows in job["steps"]:
        optimizer.zero_grad()
        total, targets = 0.0, 0
        for row in rows:
            loss, count = row_loss(model, row)
            loss.backward()
            total, targets = total + loss.item(), targets + count
        for leaf in parameters:
            leaf.grad /= targets
        norm = torch.nn.utils.clip_grad_norm_(parameters, job["max_grad_norm"])
        optimizer.step()
        scheduler.step()
        losses.append(total / targets)
        norms.append(norm.item())
    return {"losses": losses, "norms": norms}


def row_loss(model, row):
    """The sum of a row's losses over its targets, and their number."""
    tokens = torch.tensor([row["tokens"]])
    places = [place for first, end in row["spans"] for place in range(first, end)]
    logits = model(tokens).logits[0].log_softmax(-1)
    return -sum(logits[place - 1, tokens[0, place]] for place in places), len(places)


def share(step, job):
    """The learning rate of a step, counted from 0, as a share of the highest."""
    warmup, steps = job["warmup_steps"], len(job["steps"])
    if step < warmup:
        return (step + 1) / warmup
    if job["schedule"] == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
    return 1.0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
