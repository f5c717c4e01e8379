"""The model card of an adapter, and of the folders that are made of it: README.md as the Hugging Face hub reads it.

Reads what a run has left; scores and decision are on the card if they are there. No time, no path of this machine.
"""

import json
import re
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, __version__
from thunder_train.config.project import Recipe
from thunder_train.core import files, hub_cache, paths, shipped, template_arguments, templates
from thunder_train.core.text import printable
from thunder_train.evaluate.conditions import ALL

TEMPLATE = Path("templates/model_card.md.j2")
LICENCE = re.compile(r"^---\n(?:.*\n)*?license: *([A-Za-z0-9._-]{1,40}) *\n(?:.*\n)*?---\n")
"""The licence in the front matter of a model card."""
SHOWN_BYTES = 1 << 16


def card(recipe: Recipe, root: Path, kind: str = "adapter", decision: dict[str, Any] | None = None) -> str:
    """A card. kind: adapter, fused or peft. decision: content of promotion.json, where that is not written yet."""
    run, name = root / paths.run(recipe.name), recipe.model.name
    done, lock = files.read_json(run / "adapter/done.json"), files.read_json(root / paths.model_lock(name))
    evaluation = _read(run / "eval.json")
    decision = decision or _read(run / "promotion.json")
    values = {
        "kind": kind,
        "recipe": recipe,
        "base": recipe.model.repo or name,
        "commit": lock.get("commit", ""),
        "weights": files.digest(lock["files"]),
        "quantized": _bits(recipe, root, lock) if kind == "fused" else "",
        "usage": _usage(recipe, kind),
        "arguments": template_arguments.text_of(recipe.model.template) if recipe.model.template else "",
        "rows": done["rows"],
        "evidence": ", ".join(_read(root / paths.dataset_manifest(recipe.dataset.name)).get("evidence_kinds", [])),
        "done": done,
        "overall": [line for line in evaluation.get("conditions", []) if line["partition"] == ALL],
        "profile": evaluation.get("profile", {}).get("name", ""),
        "scored": evaluation.get("rows", {}).get("scored", 0),
        "decision": decision.get("decision", ""),
        "reasons": "; ".join(_texts(decision.get("reasons", []))),
        "run_id": _read(run / "manifest.json").get("run_id", "") if kind != "adapter" else "",
        "version": __version__,
    }
    return _front_matter(recipe, root, lock, kind) + templates.markdown(TEMPLATE, values)


def _texts(reasons: list[Any]) -> list[str]:
    texts = (each["text"] if isinstance(each, dict) else each for each in reasons)
    return [str(text).rstrip(".") for text in texts]


def _front_matter(recipe: Recipe, root: Path, lock: dict[str, Any], kind: str) -> str:
    """YAML that the hub reads; each value as JSON, which is YAML too."""
    table: dict[str, Any] = {"library_name": "peft" if kind == "peft" else "mlx", "pipeline_tag": "text-generation"}
    table["tags"] = ["mlx", "lora" if kind != "fused" else "fused", "thunder-train"]
    if recipe.model.repo:
        table |= {"base_model": recipe.model.repo}
    if licence := _licence(recipe, root, lock):
        table |= {"license": licence}
    lines = [f"{name}: {json.dumps(value, ensure_ascii=True)}\n" for name, value in sorted(table.items())]
    return f"---\n{''.join(lines)}---\n\n"


def _home(recipe: Recipe, root: Path, lock: dict[str, Any]) -> Path | None:
    """The folder of the base's files."""
    if recipe.model.kind == "hub":
        return hub_cache.snapshot_here(recipe.model.repo, lock["commit"])
    return shipped.place(recipe.model.path, root) if recipe.model.kind == "path" else None


def _licence(recipe: Recipe, root: Path, lock: dict[str, Any]) -> str:
    """The licence that the base's own card states; "" if it states none."""
    home = _home(recipe, root, lock)
    try:
        text = files.read_bytes(home / "README.md", SHOWN_BYTES).decode("utf-8", "replace") if home else ""
    except OSError:
        return ""
    match = LICENCE.match(text.replace("\r\n", "\n"))
    return match[1] if match else ""


def _bits(recipe: Recipe, root: Path, lock: dict[str, Any]) -> str:
    """Bits of the weights of a fused folder; "" if they are not packed."""
    config = _read(root / paths.fused(recipe.name) / "config.json") or _read(
        (_home(recipe, root, lock) or root) / "config.json"
    )
    quantization = config.get("quantization")
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    return str(bits) if isinstance(bits, int) else ""


def _usage(recipe: Recipe, kind: str) -> list[str]:
    """Lines that load the folder. FOLDER stands for where it lies."""
    base = printable(recipe.model.repo or "BASE")
    if kind == "peft":
        return [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "FOLDER")',
        ]
    model = "--model FOLDER" if kind == "fused" else f"--model {base} --adapter-path FOLDER"
    return [f'mlx_lm.generate {model} --prompt "..."', f"mlx_lm.server {model}"]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of the run, {} where there is none."""
    if not path.is_file():
        return {}
    try:
        value = files.read_json(path)
    except ThunderError:
        return {}
    return value if isinstance(value, dict) else {}
