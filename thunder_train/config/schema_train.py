"""The keys of [train], in the order of launch.sh: first the seed's, then ours. Each is a flag of the worker, too."""

from thunder_train.config.fields import LAYER, Table, real, switch, text, texts, whole

TRAIN: Table = {
    "strategy": text(
        "data: every rank holds the whole model and its own rows; tensor: every rank holds a part of each layer",
        allowed=["data", "tensor"],
        default="data",
    ),
    "num_iters": whole("optimizer steps", "steps", 1, 10_000_000, required=True),
    "batch_size": whole("rows of each rank in each step", "rows per rank", 1, 65_536, default=1),
    "num_layers": whole("last layers that get LoRA", "layers", 1, 1024, default=4),
    "lora_rank": whole("rank of the LoRA matrices", "", 1, 4096, default=8),
    "learning_rate": real("step size of AdamW, the schedule's highest", "per step", 1e-9, 1.0, default=1e-5),
    "log_every": whole("steps between train losses", "steps", 1, 10_000_000, default=10),
    "eval_every": whole("steps between validations", "steps", 1, 10_000_000, default=100),
    "save_every": whole("steps between checkpoints", "steps", 1, 10_000_000, default=100),
    "max_seq_len": whole("longest row", "tokens", 8, 1_048_576, default=512),
    "fine_tune_type": text(
        "lora, or dora: LoRA with a trained magnitude per output; dora is slower and wants strategy data",
        allowed=["lora", "dora"],
        default="lora",
    ),
    "lora_scale": real("factor of the LoRA product", "", 0.0, 1000.0, default=20.0),
    "lora_dropout": real("dropout before the LoRA product", "share", 0.0, 0.9, default=0.0),
    "lora_keys": texts(
        "linear layers that get LoRA, as self_attn.q_proj; empty: all",
        default=[],
        schema={"type": "string", "regex": LAYER},
    ),
    "global_batch_size": whole(
        "rows of all ranks in each step, whatever their number; 0: batch_size x ranks x grad_accumulation",
        "rows",
        0,
        1_000_000,
        default=0,
    ),
    "grad_accumulation": whole("batches that one step adds up", "batches", 1, 65_536, default=1),
    "micro_tokens": whole(
        "tokens that go through the model at once, padding included; a longer row goes alone",
        "tokens per rank",
        8,
        10_000_000,
        default=8192,
    ),
    "packing": text(
        "auto: rows share a width without seeing each other where the model allows it; never: padded rows",
        allowed=["auto", "never"],
        default="auto",
    ),
    "train_on": text(
        "which answers of a row teach: its last one, or every assistant turn", allowed=["last", "all"], default="last"
    ),
    "too_long": text(
        "a row whose answer max_seq_len would cut: refuse stops, drop leaves it out and counts it, split goes on with "
        "the rest of the answer in a row of its own",
        allowed=["refuse", "drop", "split"],
        default="refuse",
    ),
    "schedule": text(
        "learning rate after the warm-up: constant, or linear or cosine down to 0 at the last step",
        allowed=["constant", "linear", "cosine"],
        default="constant",
    ),
    "warmup_steps": whole("steps over which the learning rate rises", "steps", 0, 10_000_000, default=0),
    "weight_decay": real("decay of AdamW", "per step", 0.0, 1.0, default=0.01),
    "max_grad_norm": real("gradients are clipped to this norm; 0: never", "", 0.0, 1e6, default=1.0),
    "grad_checkpoint": switch("compute activations twice to hold fewer", default=False),
    "choose": text(
        "which adapter is kept as the result: the one of the best validation, or the last one",
        allowed=["best", "last"],
        default="best",
    ),
    "patience": whole(
        "validations without a better loss that end the run; 0: none do", "validations", 0, 10_000, default=0
    ),
    "max_skipped": whole("steps in a row that a NaN may skip before the run stops", "steps", 1, 10_000, default=10),
    "keep_checkpoints": whole("last checkpoints that are kept", "checkpoints", 1, 1000, default=2),
    "stall_timeout_s": whole("time without a step after which the run is ended", "s", 1, 86_400, default=600),
    "start_timeout_s": whole("time until the first step after which it is", "s", 1, 86_400, default=1800),
    "max_restarts": whole("times that a run goes on from its last checkpoint after a failure", "", 0, 1000, default=0),
    "report_to": texts(
        "trackers of rank 0, through mlx-lm's callbacks",
        default=[],
        schema={"type": "string", "allowed": ["wandb", "swanlab"]},
    ),
    "seed": whole("seed of LoRA weights, dropout and row order", "", 0, 2**31 - 1, default=0),
}
