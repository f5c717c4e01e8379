"""The [train] table of a recipe."""

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Train:
    """The [train] table; schema.py tells units and meanings."""

    strategy: str
    num_iters: int
    batch_size: int
    num_layers: int
    lora_rank: int
    learning_rate: float
    log_every: int
    eval_every: int
    save_every: int
    max_seq_len: int
    fine_tune_type: str
    lora_scale: float
    lora_dropout: float
    lora_keys: tuple[str, ...]
    global_batch_size: int
    grad_accumulation: int
    micro_tokens: int
    packing: str
    train_on: str
    too_long: str
    schedule: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    grad_checkpoint: bool
    choose: str
    patience: int
    max_skipped: int
    keep_checkpoints: int
    stall_timeout_s: int
    start_timeout_s: int
    max_restarts: int
    report_to: tuple[str, ...]
    seed: int

    def rows_per_step(self, ranks: int) -> int:
        """Rows that one optimizer step takes on all ranks together; in tensor strategy the ranks share them."""
        spread = ranks if self.strategy == "data" else 1
        return self.global_batch_size or self.batch_size * spread * self.grad_accumulation
