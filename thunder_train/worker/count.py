"""How many parameters a model has and how many a LoRA adapter would train, from config.json alone, as JSON."""

import json
from pathlib import Path

from thunder_train import files
from thunder_train.worker.entry import Parser, enter


def main(argv: list[str]) -> None:
    """Print {"parameters", "trainable_parameters"}."""
    parser = Parser(prog="thunder_train.worker.count", description="count parameters without a weight")
    parser.add_argument("--config", type=Path, required=True, help="config.json of an mlx-lm model")
    parser.add_argument("--num-layers", type=int, required=True, help="last blocks that get an adapter")
    parser.add_argument("--lora-rank", type=int, required=True, help="inner width of each adapter")
    parser.add_argument("--lora-keys", default="", help="layers in a block, a,b; empty: every linear layer")
    flags = parser.parse_args(argv)
    from thunder_train.worker.model import count

    keys = tuple(filter(None, flags.lora_keys.split(",")))
    total, trained = count(files.read_json(flags.config), flags.num_layers, flags.lora_rank, keys)
    print(json.dumps({"parameters": total, "trainable_parameters": trained}, sort_keys=True))


if __name__ == "__main__":
    enter(main)
