"""Fuses an adapter into its base: writes a folder and, into a file, how far the folder does what the adapter did."""

from thunder_train.core import files
from thunder_train.worker.bootstrap import enter
from thunder_train.worker.evaluate_args import Fusing, parsed


def main(argv: list[str]) -> None:
    """Write the folder, then the comparison, which proves that the folder is whole."""
    task = parsed(Fusing, argv, "thunder_train.worker.fuse", "fuse an adapter into its base model")
    from thunder_train.worker import fusing  # after the flags: mlx and mlx-lm take two seconds to import

    files.write_json(task.losses, fusing.fuse(task))


if __name__ == "__main__":
    enter(main)
