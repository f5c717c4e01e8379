"""Takes an adapter that another program trained: checks it against its base and writes it as mlx-lm keeps it."""

from pathlib import Path

from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter


def main(argv: list[str]) -> None:
    """Write adapters.safetensors, adapter_config.json and done.json."""
    parser = Parser(prog="thunder_train.worker.adopt", description="take an adapter from elsewhere", allow_abbrev=False)
    for flag in ("--model", "--model-lock", "--source", "--adapter-path"):
        parser.add_argument(flag, required=True)
    given = parser.parse_args(argv)
    from thunder_train.worker import adoption  # after the flags: mlx and mlx-lm take two seconds to import

    adoption.adopt(Path(given.source), given.model, given.model_lock, Path(given.adapter_path))


if __name__ == "__main__":
    enter(main)
