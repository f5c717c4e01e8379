"""Measures LoRA on a real model: our training, mlx_lm.lora under mlx.launch, and PEFT on torch's CPU.

.venv/bin/python benchmarks/train_real.py --model FOLDER [--torch PYTHON] [--epochs 3] [--rows 96] [--turns 1]
    [--cases float32-4,float32-all,4bit-4,4bit-all] [--sides "ours,mlx-lm,PEFT on torch"] [--ranks 2]
    [--add] [--write] [--tiny]

FOLDER: a small Llama in float32, such as SmolLM2-135M-Instruct, fetched and converted with
    .venv/bin/mlx_lm.convert --hf-path HuggingFaceTB/SmolLM2-135M-Instruct --dtype float32 --mlx-path FOLDER
The others are made from it; the cases bfloat16-4 and bfloat16-all are for a GPU. PYTHON: that of an environment of its
own with torch, transformers and peft (`python -m venv torchenv; torchenv/bin/pip install torch transformers peft`);
without it that side is left out. --ranks 1: without a launcher, as on one GPU, which each side takes if its MLX or
torch has one. --add: keep the results of runs before with the same rows and model. --write: write the tables of results
to benchmarks/TRAIN.md. --tiny: a few steps of a tiny model in a temporary folder, to check that this program works.
Other files are below .thunder/bench/train-real. Run it on an idle machine: two ranks need two cores.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import train_english
import train_page
import train_real_page
import train_run
from train_losses import run, valid_loss
from train_material import LONGEST, PROJECT, Material, write_model
from train_real_page import CASES, PEFT, Case, Result
from train_sides import DECAY, EAGER, OURS, QUIET, RANK, SCALE, THEIRS, Side, side

BENCH = PROJECT / ".thunder" / "bench" / "train-real"
BATCH, RATE, RANKS = 8, 1e-4, 2
"""Rows per step of all ranks; learning rate; ranks of ours and of mlx-lm, and threads of PEFT."""
VALID = re.compile(r"^(?:step \d+/\d+  valid loss|\s*\d+\s+val +[\d.]+ +([\d.]+)s)")
"""The line of a validation, ours or mlx-lm's; mlx-lm says how many seconds it took."""
TRAINED = re.compile(r"^(?:step (\d+)/\d+  train loss|\s*(\d+)\s+[\d.]+ [▼▲])")
TINY = {"layers": 2, "width": 64, "heads": 2, "kv-heads": 1, "hidden": 64}
"""Shape of the model of --tiny."""


def measure(subject: Side, case: Case, epochs: int, targets: int) -> Result:
    """Train once: from the first validation to the line of the last step, without the validations between."""
    start = trained = validated = total = 0.0
    for seconds, line, _ in train_run.lines(subject):
        total = seconds
        if TRAINED.match(line):
            trained, without = seconds, validated
        elif found := VALID.match(line):
            if not start:
                start = seconds
            else:
                validated += float(found[1] or 0)
    return Result(
        case=case.name,
        side=subject.name,
        epochs=epochs,
        targets=epochs * targets,
        seconds=trained - start - without,
        total_s=total,
        mlx_bytes=train_run.peak_bytes(subject),
        rss_bytes=train_run.peak_bytes(subject, "rss_bytes"),
        loss=0.0,
    )


def subject_of(
    name: str, case: Case, model: Path, material: Material, epochs: int, python: str, ranks: int = RANKS
) -> Side:
    """A side's commands."""
    run_folder = material.folder.parent / f"{case.name}-{re.sub('[^a-z0-9]+', '-', name.lower())}"
    layers = case.layers or json.loads((model / "config.json").read_text())["num_hidden_layers"]
    if name != PEFT:
        return side(name, model, material, epochs, run_folder, layers=layers, rate=RATE, ranks=ranks)
    run_folder.mkdir(parents=True, exist_ok=True)
    job = {
        "model": str(model), "adapter": str(run_folder / "peft"), "probe": str(run_folder / "probe" / "peft.json"),
        "threads": ranks, "rank": RANK, "scale": SCALE, "layers": layers, "learning_rate": RATE,
        "weight_decay": DECAY, "batch": BATCH, "epochs": epochs, "dtype": case.numbers,
        "rows": json.loads((material.folder / "tokens.json").read_text()),
    }  # fmt: skip
    (run_folder / "job.json").write_text(json.dumps(job))
    script = PROJECT / "benchmarks" / "train_peft.py"
    return Side(name, run_folder, [([python, str(script), str(run_folder / "job.json")], {"PYTHONUNBUFFERED": "1"})])


def loss_of(subject: Side, model: Path, material: Material) -> float:
    """The validation loss of a side's adapter by our program, which reads PEFT's too."""
    if subject.name == PEFT:
        peft = {"--source": subject.run / "peft", "--adapter-path": subject.adapter}
        run("thunder_train.worker.adopt", {"--model": model, "--model-lock": "", **peft})
    return valid_loss(subject, model, material)


def write_tokens(material: Material, model: Path) -> int:
    """Write the rows as tokens, for PEFT. Returns the supervised tokens of an epoch."""
    from thunder_train.worker.bootstrap import preload

    preload()
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    end = json.loads((model / "config.json").read_text())["eos_token_id"]
    chat = Chat(load_tokenizer(model, eos_token_ids=[end]))
    rows = {
        name: tokens.read(material.folder / f"{name}.jsonl", chat, tokens.Policy(LONGEST)).examples
        for name in ("train", "valid")
    }
    written = {name: [{"tokens": row.tokens, "spans": row.spans} for row in each] for name, each in rows.items()}
    (material.folder / "tokens.json").write_text(json.dumps(written))
    return sum(row.targets for row in rows["train"])


def base_of(case: Case, model: Path, folder: Path) -> Path:
    """The model in the case's numbers, written to the folder unless it has it; a float32 model is its own."""
    if case.numbers == "float32":
        return model
    if not (folder / "config.json").exists():
        program = str(Path(sys.executable).parent / "mlx_lm.convert")
        numbers = ["-q", "--q-bits", "4"] if case.numbers == "4bit" else ["--dtype", case.numbers]
        argv = [program, "--hf-path", str(model), "--mlx-path", str(folder), *numbers]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return folder


def compare(
    case: Case, names: list[str], model: Path, material: Material, flags: argparse.Namespace
) -> Iterator[Result]:
    """Results of a case, one per side and turn. In a turn the sides train one after the other."""
    targets = write_tokens(material, model)
    for turn in range(flags.turns):
        for name in names if turn % 2 == 0 else names[::-1]:
            subject = subject_of(name, case, model, material, flags.epochs, flags.torch, flags.ranks)
            result = measure(subject, case, flags.epochs, targets)
            print(f"{case.name}  {name}: {result.targets_per_s:.0f} targets/s, {result.total_s:.0f} s", flush=True)
            yield replace(result, loss=loss_of(subject, model, material))


def measure_all(home: Path, flags: argparse.Namespace) -> list[Result]:
    """All cases that are asked for. Each result is kept at once, for --add."""
    store, model = home / "results.json", Path(flags.model).resolve()
    results = [Result(**each) for each in json.loads(store.read_text())] if flags.add and store.exists() else []
    material = train_english.write(home / "rows", flags.rows, BATCH)
    warm = train_english.write(home / "warm" / "rows", BATCH, BATCH)
    for name in flags.cases:
        case = CASES[name]
        base = base_of(case, model, home / case.numbers)
        sides = [each for each in flags.sides if each != PEFT or (flags.torch and case.numbers != "4bit")]
        if {THEIRS, QUIET} & set(sides):  # mlx-lm keeps its compiled code on disk; ours compiles nothing on a CPU
            for _ in train_run.lines(subject_of(QUIET, case, base, warm, 1, "", flags.ranks)):
                pass
        for result in compare(case, sides, base, material, flags):
            results.append(result)
            store.write_text(json.dumps([asdict(each) for each in results], indent=1))
    return results


def tiny(home: Path, python: str) -> None:
    """Each kind of side once on a tiny model, without a page."""
    write_model(home / "model", TINY)
    packed = base_of(CASES["4bit-all"], home / "model", home / "4bit")
    material = train_english.write(home / "rows", BATCH, BATCH, longest=30)
    flags = argparse.Namespace(turns=1, epochs=2, torch=python, ranks=RANKS)
    list(compare(CASES["float32-4"]._replace(layers=1), [OURS, EAGER], home / "model", material, flags))
    list(compare(CASES["4bit-all"], [OURS], packed, material, flags))
    if python:
        list(compare(CASES["float32-all"], [PEFT], home / "model", material, flags))


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--torch", default="")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=RANKS, choices=[1, RANKS])
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES)[:4])
    parser.add_argument("--sides", type=lambda text: text.split(","), default=[OURS, THEIRS, PEFT])
    for name in ("add", "write", "tiny"):
        parser.add_argument(f"--{name}", action="store_true")
    flags = parser.parse_args()
    if flags.tiny:
        with tempfile.TemporaryDirectory() as folder:
            tiny(Path(folder), flags.torch)
        return
    if not flags.model:
        parser.error("--model is missing: the folder of a small Llama in float32")
    load = os.getloadavg()[0]
    results = measure_all(BENCH, flags)
    text = train_real_page.page(results, Path(flags.model).name, flags.rows, BATCH, load)
    print(text)
    if flags.write:
        train_page.write("train_real.py", text)


if __name__ == "__main__":
    main()
