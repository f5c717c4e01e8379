"""Keys of other trainers -> what to write here. An unknown key is looked up before any similar word is suggested.

Names are those of mlx-lm 0.32's config, axolotl, TRL with transformers' TrainingArguments, and Unsloth. `lora_layers`
is similar to `lora_keys` and means something else: a wrong suggestion costs more than none.
"""

STEPS = "write num_iters under [train], counted in updates: mlx-lm's iters / grad_accumulation_steps"
EPOCHS = "write epochs under [train]"
LENGTH = "write max_seq_len under [train]"
LAYERS = 'write num_layers under [train]; mlx-lm\'s -1 is "all"'
BATCH = "write batch_size under [train], rows per rank; or global_batch_size, rows of all ranks"
ACCUMULATE = "write grad_accumulation under [train]"
RANK = "write lora_rank under [train]"
DROPOUT = "write lora_dropout under [train]"
ALPHA = "write lora_alpha under [train]"
TARGETS = 'write lora_keys under [train], as ["q_proj", "v_proj"]; left out: all linear layers'
EVALUATE = "write eval_every under [train], in updates"
LOG = "write log_every under [train], in updates"
SAVE = "write save_every under [train], in updates"
SCHEDULE = 'write schedule under [train]: "constant", "linear" or "cosine"'
CLIP = "write max_grad_norm under [train]"
CHECKPOINTING = "write grad_checkpoint = true under [train]"
PACKING = 'leave it out: rows are packed where it is exact; packing = "never" under [train] turns it off'
MODEL = 'write a table [models.NAME] in thunder.toml with repo or path, and model = "NAME" at the top of the recipe'
DATA = 'write a table [datasets.NAME] in thunder.toml with its sources, and dataset = "NAME" at the top of the recipe'
SPLIT = "write split under [datasets.NAME]: its parts for validation and test"
OUTPUT = "leave it out: the adapter lies in runs/NAME/adapter"
PROMPTS = 'write train_on under [train]: "last" or "all" answers, or "everything", prompts too'
TRACK = "write report_to under [train]"
EARLY = "write patience under [train], counted in validations"
BITS = "leave it out: use a model that is packed already, as mlx_lm.convert -q makes it"
PRECISION = "leave it out: the model's own type is used"
TESTS = "leave it out: every row of test.jsonl is evaluated"

HINTS = {
    # mlx-lm
    "iters": STEPS,
    "lora_layers": LAYERS,
    "max_seq_length": LENGTH,
    "steps_per_eval": EVALUATE,
    "steps_per_report": LOG,
    "val_batches": "write eval_rows under [train], in rows; left out: all validation rows",
    "grad_accumulation_steps": ACCUMULATE,
    "lora_parameters": "write lora_rank, lora_scale (or lora_alpha), lora_dropout and lora_keys under [train]",
    "lr_schedule": f"{SCHEDULE}, with warmup_steps or warmup_ratio",
    "optimizer_config": "write weight_decay under [train]",
    "mask_prompt": PROMPTS,
    "resume_adapter_file": 'write start_from under [train], as "recipe:NAME" or a folder',
    "adapter_path": OUTPUT,
    "adapter_file": OUTPUT,
    "data": DATA,
    "hf_dataset": DATA,
    "train": "make it a table, [train]",
    "test": TESTS,
    "test_batches": TESTS,
    "config": "leave it out: a recipe is the config",
    "project_name": TRACK,
    "clear_cache_threshold": "write micro_tokens under [train], which bounds memory",
    # axolotl
    "base_model": MODEL,
    "datasets": DATA,
    "dataset_prepared_path": "leave it out: tokenised rows are kept below .thunder",
    "val_set_size": SPLIT,
    "output_dir": OUTPUT,
    "sequence_len": LENGTH,
    "sample_packing": PACKING,
    "pad_to_sequence_len": PACKING,
    "micro_batch_size": BATCH,
    "gradient_accumulation_steps": ACCUMULATE,
    "num_epochs": EPOCHS,
    "max_steps": "write num_iters under [train]",
    "lora_r": RANK,
    "lora_target_modules": TARGETS,
    "lora_target_linear": "leave lora_keys out: then every linear layer of num_layers layers gets LoRA",
    "lora_modules_to_save": "leave it out: an adapter holds LoRA matrices alone",
    "adapter": 'write fine_tune_type under [train]: "lora" or "dora"',
    "peft_use_dora": 'write fine_tune_type = "dora" under [train]',
    "train_on_inputs": PROMPTS,
    "roles_to_train": PROMPTS,
    "lr_scheduler": SCHEDULE,
    "gradient_checkpointing": CHECKPOINTING,
    "gradient_clipping": CLIP,
    "load_in_4bit": BITS,
    "load_in_8bit": BITS,
    "bf16": PRECISION,
    "fp16": PRECISION,
    "tf32": PRECISION,
    "flash_attention": "leave it out: MLX's own attention is used",
    "special_tokens": "leave it out: the model's own tokenizer is used",
    "chat_template": "write chat_template under [models.NAME] in thunder.toml",
    "early_stopping_patience": EARLY,
    "wandb_project": f"{TRACK}, and report_project",
    "wandb_name": f"{TRACK}, and report_name",
    # TRL, transformers, Unsloth
    "model_name": MODEL,
    "model_name_or_path": MODEL,
    "dataset_name": DATA,
    "dataset_text_field": "write the table fields of a source in thunder.toml",
    "per_device_train_batch_size": BATCH,
    "per_device_eval_batch_size": "write micro_tokens under [train], which bounds validations too",
    "num_train_epochs": EPOCHS,
    "max_length": LENGTH,
    "packing_strategy": PACKING,
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": DROPOUT,
    "target_modules": TARGETS,
    "use_dora": 'write fine_tune_type = "dora" under [train]',
    "use_rslora": "write lora_alpha under [train] as alpha x sqrt(rank)",
    "lr": "write learning_rate under [train]",
    "learning_rate": "write learning_rate under [train]",
    "lr_scheduler_type": SCHEDULE,
    "warmup": "write warmup_steps or warmup_ratio under [train]",
    "warmup_ratio": "write warmup_ratio under [train]",
    "warmup_steps": "write warmup_steps under [train]",
    "eval_steps": EVALUATE,
    "logging_steps": LOG,
    "save_steps": SAVE,
    "save_total_limit": "write keep_checkpoints under [train]",
    "load_best_model_at_end": 'leave it out: choose = "best" is the default of [train]',
    "max_grad_norm": CLIP,
    "optim": "write optimizer under [train], as adamw or adafactor",
    "completion_only_loss": PROMPTS,
    "assistant_only_loss": PROMPTS,
    "dataset_num_proc": "leave it out: rows are read on all cores",
    "random_state": "write seed under [train]",
    "fine_tune_type": "write fine_tune_type under [train]",
    "num_layers": LAYERS,
    "num_iters": "write num_iters under [train]",
    "batch_size": BATCH,
    "epochs": EPOCHS,
    "seed": "write seed under [train]",
    "report_to": TRACK,
    "optimizer": "write optimizer under [train]",
    "grad_checkpoint": CHECKPOINTING,
    "save_every": SAVE,
    "weight_decay": "write weight_decay under [train]",
    "micro_tokens": "write micro_tokens under [train]",
    "trust_remote_code": "leave it out: a model's own code is never run",
}
"""{key, with _ in place of -: what to do}"""


def hint(key: str) -> str:
    """What to do with a key of another trainer; "" for a key that nobody has."""
    return HINTS.get(key.strip().lower().replace("-", "_"), "")
