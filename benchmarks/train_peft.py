"""A side of train_real.py: LoRA by PEFT on torch, in an environment of its own, on a GPU if torch has one.

python train_peft.py JOB.json

One process, since torch trains on several CPUs by threads. A step is one padded batch in random order, as transformers'
Trainer makes it. Rows come as tokens, so that all sides have the same. Lines are printed as our worker prints them.
"""

import json
import random
import resource
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

IGNORED = -100
"""What torch's cross-entropy leaves out."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main(job):
    """Train, and write the adapter and the peak memory."""
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).to(DEVICE)
    blocks = base.config.num_hidden_layers
    lora = LoraConfig(
        r=job["rank"],
        lora_alpha=job["scale"] * job["rank"],
        target_modules=list(LAYERS),
        layers_to_transform=list(range(blocks - job["layers"], blocks)),
        lora_dropout=0.0,
    )
    model = get_peft_model(base, lora)
    trained = [leaf for leaf in model.parameters() if leaf.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job["learning_rate"], weight_decay=job["weight_decay"])
    train(model, optimizer, job)
    model.save_pretrained(job["adapter"])
    used = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
    peak = {"mlx_bytes": used, "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    Path(job["probe"]).write_text(json.dumps(peak))


def train(model, optimizer, job):
    """All epochs, with a validation before the first step and after the last."""
    rows, size = job["rows"]["train"], job["batch"]
    steps, step = job["epochs"] * (len(rows) // size), 0
    validate(model, job, step, steps)
    for epoch in range(job["epochs"]):
        draw, total, targets = random.Random(epoch), 0.0, 0  # noqa: S311  (order, not secrecy)
        order = draw.sample(range(len(rows)), len(rows))
        for start in range(0, len(rows), size):
            model.train()
            summed, count = losses(model, [rows[i] for i in order[start : start + size]])
            optimizer.zero_grad()
            (summed / count).backward()
            optimizer.step()
            step, total, targets = step + 1, total + summed.item(), targets + count
        print(f"step {step}/{steps}  train loss {total / targets:.4f}", flush=True)
    validate(model, job, step, steps)


@torch.no_grad()
def validate(model, job, step, steps):
    """Print the loss of all validation rows."""
    model.eval()
    rows, size = job["rows"]["valid"], job["batch"]
    parts = [losses(model, rows[start : start + size]) for start in range(0, len(rows), size)]
    loss = sum(summed.item() for summed, _ in parts) / sum(count for _, count in parts)
    print(f"step {step}/{steps}  valid loss {loss:.4f}", flush=True)


def losses(model, rows):
    """The sum of the targets' losses in a padded batch, and their number."""
    width = max(len(row["tokens"]) for row in rows)
    tokens, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), IGNORED)
    attended = torch.zeros(len(rows), width, dtype=torch.long)
    for line, row in enumerate(rows):
        length = len(row["tokens"])
        tokens[line, :length], attended[line, :length] = torch.tensor(row["tokens"]), 1
        for first, end in row["spans"]:
            labels[line, first:end] = tokens[line, first:end]
    tokens, labels, attended = tokens.to(DEVICE), labels.to(DEVICE), attended.to(DEVICE)
    logits = model(input_ids=tokens, attention_mask=attended).logits[:, :-1].flatten(0, 1).float()
    wanted = labels[:, 1:].flatten()
    return cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum"), int((wanted != IGNORED).sum())


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
