"""Where a project keeps its files, below its folder, and the names of the files that stages hand to each other."""

STATE = ".thunder"
"""What a machine keeps for itself; git ignores it."""
MEMORY = f"{STATE}/state.sqlite"
"""What doit remembers of each task."""
STATS = f"{STATE}/stats.sqlite"
"""Hashes of files, by size and times."""
STAGING = f"{STATE}/staging"
"""Targets of stages that still run."""
PARTIAL = f"{STATE}/partial"
"""Checkpoints of unfinished trainings, by key, and answers of unfinished evaluations."""
LAST = f"{STATE}/last"
"""The last checkpoints of finished trainings, by key without the number of steps."""
TOKENS = f"{STATE}/tokens"
"""Tokenized rows."""
ARRIVED = f"{STATE}/arrived"
"""Files fetched from a host and not verified yet."""
REPRODUCE = f"{STATE}/reproduce"
"""Projects in which runs are made again."""
INDEX = "runs/index.html"
"""The page of all runs."""
LOOKS = "runs/looks.jsonl"
"""Which adapters were evaluated on which test rows; committed."""

ACCEPTED = "accepted.json"
"""Beside a stage's targets: outputs that a person let stand under other code or in another environment."""
AUDIT = "audit.html"
"""Rendered from templates/audit.html.j2."""
AUDITED = "audit.json"
"""What that page shows."""
DATA = ("train.jsonl", "valid.jsonl", "test.jsonl", "decisions.jsonl", "dropped.jsonl", AUDITED, AUDIT, "manifest.json")
"""Of a dataset's folder: what its stage makes."""
SCRIPTS = ("launch.sh", "evaluate.sh")
"""Rendered from templates/<name>.j2."""
SENT = (*SCRIPTS, "hostfile.json", "recipe.toml")
"""Of a run's folder: what the ranks read, and what makes the recipe the same on every machine."""
ADAPTER = ("adapter/adapters.safetensors", "adapter/adapter_config.json")
MLX_LM = ("adapters.safetensors", "adapter_config.json")
"""Files of an adapter as mlx-lm keeps it."""
PEFT = ("adapter_model.safetensors", "adapter_config.json")
"""Files of an adapter as PEFT keeps it."""
TRAINED = (
    *ADAPTER,
    "adapter/done.json",
    "last/adapters.safetensors",
    "last/adapter_config.json",
    "metrics.jsonl",
    "timing.json",
)
"""What a training leaves: the chosen adapter, and the last one if another was better."""
EVALUATED = ("predictions.jsonl", "decisions.jsonl", "eval.json")
"""What an evaluation leaves."""
OF_TRAINING = ("metrics.jsonl", "timing.json")
"""Of that what the run of an adapter from elsewhere has not."""
MEASURED = ("preflight.json", "adapter/done.json", *OF_TRAINING, *EVALUATED)
"""What the report reads of a run."""
REPORTS = ("report.md", "report.html")
"""Rendered from templates/<name>.j2."""
ATTESTATION = "attestation.json"
"""The provenance of a run for others: an in-toto statement."""
CARD = "adapter/README.md"
"""The adapter's model card, rendered from templates/model_card.md.j2."""
PARTS = ("verdict", "scores", "behaviour", "examples", "rows", "training", "details", "macros")
"""Parts of report.html: templates/report/<name>.html.j2."""
PAGES = (
    *(f"templates/{name}.j2" for name in (*REPORTS, "style.css", "model_card.md")),
    *(f"templates/report/{name}.html.j2" for name in PARTS),
    "templates/report/style.css.j2",
    *(f"templates/{name}" for name in ("report/page.js", "table.js", "report/rows.js")),
)
"""What the pages of a run are rendered from."""
OUTPUTS = (
    "adapter/adapter_config.json",
    "adapter/adapters.safetensors",
    "adapter/done.json",
    "decisions.jsonl",
    "eval.json",
    "predictions.jsonl",
    "promotion.json",
)
"""Files of a run that hold its results, the same bytes each time the run is made; its manifest lists them."""

RECORDS = ("manifest.json", "model.lock.json")
"""Targets that are committed: a lock pins the base model, and a manifest is what another build is compared with."""


def dataset(name: str) -> str:
    """The folder of a dataset."""
    return f"data/{name}"


def dataset_manifest(name: str) -> str:
    """The manifest of a dataset."""
    return f"data/{name}/manifest.json"


def run(name: str) -> str:
    """The folder of a recipe's run."""
    return f"runs/{name}"


def run_manifest(name: str) -> str:
    """The manifest of a recipe's run."""
    return f"runs/{name}/manifest.json"


def attestation(name: str) -> str:
    """The in-toto statement about a recipe's run."""
    return f"{run(name)}/{ATTESTATION}"


def checkpoints(key: str) -> str:
    """The checkpoints of an unfinished training. key: its stage's, without the environment."""
    return f"{PARTIAL}/{key[:16]}"


def last_checkpoint(key: str) -> str:
    """The last checkpoint of a finished training. key: its stage's, without environment and number of steps."""
    return f"{LAST}/{key[:16]}"


def answers(name: str) -> str:
    """The answers of a recipe's unfinished evaluation."""
    return f"{PARTIAL}/answers-{name}"


def correction(name: str) -> str:
    """The rows and answers of an unfinished `doit correct` with a recipe's adapter."""
    return f"{PARTIAL}/correct-{name}"


def corrected(name: str) -> str:
    """The folder of the rows that were corrected with a recipe's adapter."""
    return f"{run(name)}/corrected"


def fused(name: str) -> str:
    """A recipe's adapter in the weights of its base."""
    return f"{run(name)}/fused"


def peft(name: str) -> str:
    """A recipe's adapter as PEFT keeps it."""
    return f"{run(name)}/peft"


def model(name: str) -> str:
    """The folder of a base model."""
    return f"runs/models/{name}"


def model_lock(name: str) -> str:
    """The lock of a base model."""
    return f"runs/models/{name}/model.lock.json"
