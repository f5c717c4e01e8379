"""How many parameters a model has and how many a LoRA adapter would train, from config.json alone, as JSON."""

import json
from pathlib import Path

from thunder_train.core import files
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter


def main(argv: list[str]) -> None:
    """Print {"parameters", "trainable_parameters"}."""
    parser = Parser(prog="thunder_train.worker.inspect.count", description="count parameters without a weight")
    parser.add_argument("--config", type=Path, required=True, help="config.json of an mlx-lm model")
    parser.add_argument("--num-layers", type=int, required=True, help="last blocks that get an adapter")
    parser.add_argument("--lora-rank", type=int, required=True, help="inner width of each adapter")
    parser.add_argument("--lora-keys", default="", help="layers in a block, a,b; empty: every linear layer")
    parser.add_argument("--tensor-ranks", type=int, default=0, help="refuse a model that so many ranks cannot split")
    flags = parser.parse_args(argv)
    from thunder_train import raise_all
    from thunder_train.worker.model import build, count
    from thunder_train.worker.tensor_parallel import problems

    if flags.tensor_ranks:
        raise_all(problems(build(files.read_json(flags.config)), flags.tensor_ranks))

    keys = tuple(filter(None, flags.lora_keys.split(",")))
    total, trained = count(files.read_json(flags.config), flags.num_layers, flags.lora_rank, keys)
    print(json.dumps({"parameters": total, "trainable_parameters": trained}, sort_keys=True))


if __name__ == "__main__":
    enter(main)
