"""Every mistake in thunder.toml and recipes is reported at once, with file, key, fact and hint."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train.config.load import load, usable
from thunder_train.config.project import SECRETS
from thunder_train.core import files


def test_defaults_fill_what_a_recipe_leaves_out(project: Path) -> None:
    """
    The recipe wins over [defaults.train], which wins over the declared default.
    """
    (project / "thunder.toml").write_text(PROJECT + "[defaults.train]\nlora_rank = 16\nnum_iters = 9\n")

    train = load(project).recipes["good"].train

    assert (4, 16, 1e-5) == (train.num_iters, train.lora_rank, train.learning_rate)


def test_an_optimizer_without_weight_decay_needs_no_0(project: Path) -> None:
    """
    The default is the others'; a value that a person stated, in [defaults] too, is refused instead of ignored.
    """
    (project / "recipes" / "good.toml").write_text(RECIPE + 'optimizer = "adam"\n')

    assert 0.0 == load(project).recipes["good"].train.weight_decay
    (project / "thunder.toml").write_text(PROJECT + "[defaults.train]\nweight_decay = 0.5\n")
    assert [
        "recipes/good.toml: train.weight_decay: is 0.5, and adam has no weight decay; "
        'set it to 0, or use optimizer = "adamw"'
    ] == problems(project)


def test_whole_numbers_become_floats_where_the_key_is_a_number(project: Path) -> None:
    """
    `lora_scale = 20` and `20.0` are the same recipe, so they must not retrain each other.
    """
    (project / "recipes" / "good.toml").write_text(RECIPE + "lora_scale = 20\n")

    assert "20.0" == repr(load(project).recipes["good"].train.lora_scale)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("learnin_rate = 1e-6", "train.learnin_rate: unknown key 'learnin_rate'; did you mean 'learning_rate'?"),
        ('batch_size = "2"', "train.batch_size: must be a whole number, is '2'; change its type"),
        ("batch_size = true", "train.batch_size: must be a whole number, is True; change its type"),
        ("learning_rate = true", "train.learning_rate: must be a number, is True; change its type"),
        ("lora_rank = 0", "train.lora_rank: is 0; give at least 1"),
        ("batch_size = 0", "train.batch_size: is 0; give at least 1 row per rank"),
        ("grad_accumulation = 0", "train.grad_accumulation: is 0; give at least 1 batch"),
        ("lora_dropout = 0.95", "train.lora_dropout: is 0.95; give at most 0.9 share"),
        ("learning_rate = nan", "train.learning_rate: is nan; give a finite number"),
        ("learning_rate = inf", "train.learning_rate: is inf; give a finite number"),
        ("lora_scale = 0.0", "train.lora_scale: is 0.0; give more than 0.0"),
        (
            "global_batch_size = 8\nbatch_size = 2",
            "train.global_batch_size: sets the rows of a step, and so do batch_size and grad_accumulation; "
            "leave the other two out",
        ),
        (
            'fine_tune_type = "dora"\nstrategy = "tensor"',
            'train.fine_tune_type: DoRA is not supported with strategy = "tensor"; '
            'use fine_tune_type = "lora", or strategy = "data"',
        ),
        (
            'optimizer = "adam"\nweight_decay = 0.01',
            'train.weight_decay: is 0.01, and adam has no weight decay; set it to 0, or use optimizer = "adamw"',
        ),
        (
            'optimizer = "muon"\nfine_tune_type = "dora"',
            "train.optimizer: muon trains matrices, and the magnitudes of DoRA are none; "
            'use optimizer = "adamw", or fine_tune_type = "lora"',
        ),
        (
            "warmup_steps = 4",
            "train.warmup_steps: is 4 of 4 steps; warm up for fewer steps than there are",
        ),
        ('too_long = "drops"', "train.too_long: is 'drops'; did you mean 'drop'?"),
        ("num_layers = 7", "train.num_layers: is 7, and model 'nano' has 6 layers; give at most 6"),
        (
            'lora_keys = ["ok", "a b"]',
            "train.lora_keys[1]: 'a b' contains characters that are not allowed; "
            "give a layer's name as self_attn.q_proj, its last part, or a pattern as *.mlp.*",
        ),
        (
            "num_layers = 0",
            "train.num_layers: is 0; give at least 1 layer",
        ),
        (
            'num_layers = "most"',
            "train.num_layers: is 'most'; give a whole number, or \"all\"",
        ),
        (
            "epochs = 2",
            "train.epochs: is given, and so is num_iters; leave one of them out",
        ),
        (
            "lora_alpha = 16\nlora_scale = 2.0",
            "train.lora_alpha: is given, and so is lora_scale; leave one of them out",
        ),
        (
            "warmup_ratio = 0.1\nwarmup_steps = 1",
            "train.warmup_ratio: is given, and so is warmup_steps; leave one of them out",
        ),
        (
            'lora_keys = ["lm_head"]\nstrategy = "tensor"',
            'train.lora_keys: names lm_head, which is not supported with strategy = "tensor"; '
            'leave it out, or use strategy = "data"',
        ),
    ],
)
def test_a_wrong_training_key_is_reported_with_its_hint(project: Path, extra: str, expected: str) -> None:
    """
    A typo must never train quietly with a default.
    """
    (project / "recipes" / "good.toml").write_text(RECIPE + extra + "\n")

    assert [f"recipes/good.toml: {expected}"] == problems(project)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "A=b",
            "'A=b' is not the name of a variable; give the name alone; the value comes from the environment of doit",
        ),
        ("", "'' is not the name of a variable; give the name alone; the value comes from the environment of doit"),
        ("2A", "'2A' is not the name of a variable; give the name alone; the value comes from the environment of doit"),
        *(
            (name, f"{name!r} names a secret, and gates get none; let the gate read it from a file of its own")
            for name in (
                *SECRETS,
                "OPENAI_API_KEY",
                "github_token",
                "DB_PASSWORD",
                "AWS_SECRET_ACCESS_KEY",
                "API_KEYS",
                "PGPASSWORD",
                "HFTOKEN",
                "GH_PAT",
                "SSH_AUTH_SOCK",
                "HF_TOKEN2",
            )
        ),
    ],
)
def test_a_gate_gets_no_secret_and_only_variables_by_name(project: Path, name: str, expected: str) -> None:
    """
    A gate is another program, whose logs and crash reports are not ours.
    """
    with_gate = f'{RECIPE}\n[evaluate.gate]\ncommand = ["gate"]\nenv = ["MONKEY_MODE", "{name}"]\n'
    (project / "recipes" / "good.toml").write_text(with_gate)

    assert [f"recipes/good.toml: evaluate.gate.env[1]: {expected}"] == problems(project)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[train]\nnum_iters = 4",
            "",
            "train: is missing; add a table [train], or [adapter] with a path",
        ),
        ("num_iters = 4", "", "train.num_iters: is missing; give num_iters or epochs"),
        ('"local"', '"locl"', "cluster: no cluster is named 'locl'; did you mean 'local'?"),
        ('"nano"', '"gemma"', "model: no model is named 'gemma'; use one of: nano"),
        ('"rows"', '"row"', "dataset: no dataset is named 'row'; did you mean 'rows'?"),
        (
            'cluster = "local"',
            'name = "../up"\ncluster = "local"',
            "name: '../up' contains characters that are not allowed; "
            "use letters, digits, . _ - and begin with a letter or digit",
        ),
        (
            'cluster = "local"',
            'name = "a\\n"\ncluster = "local"',
            "name: 'a\\n' contains characters that are not allowed; "
            "use letters, digits, . _ - and begin with a letter or digit",
        ),
        (
            'cluster = "local"',
            'name = "a/b"\ncluster = "local"',
            "name: 'a/b' contains characters that are not allowed; "
            "use letters, digits, . _ - and begin with a letter or digit",
        ),
        (
            'cluster = "local"',
            'name = "models"\ncluster = "local"',
            "name: 'models' is a folder of the project; choose another name",
        ),
    ],
)
def test_a_wrong_recipe_is_reported_with_its_hint(project: Path, old: str, new: str, expected: str) -> None:
    """
    Missing tables, unknown names and names that would leave their folder.
    """
    (project / "recipes" / "good.toml").write_text(RECIPE.replace(old, new))

    assert [f"recipes/good.toml: {expected}"] == problems(project)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; start from another recipe"),
        (b" \n", "is empty; start from another recipe"),
        (b'name = "\xff"', "is not UTF-8 at byte 8; save it as UTF-8"),
        (b'\ncluster = "local\n', "is not TOML: Illegal character '\\n' (at line 2, column 17); correct that line"),
        (b"a==1", "is not TOML: Invalid value (at line 1, column 3); correct that line"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_by_name(project: Path, content: bytes, expected: str) -> None:
    """
    With line and column where the text is not TOML 1.0.
    """
    (project / "recipes" / "good.toml").write_bytes(content)

    assert [f"recipes/good.toml: {expected}"] == problems(project)


def test_a_missing_project_file_and_missing_recipes_are_reported_together(tmp_path: Path) -> None:
    """
    An empty folder is not a project.
    """
    assert [
        "thunder.toml: is missing; copy it from the project's repository",
        "recipes: holds no recipe; add recipes/NAME.toml",
    ] == problems(tmp_path)


def test_two_recipes_of_one_name_are_refused(project: Path) -> None:
    """
    They would write into one run folder.
    """
    (project / "recipes" / "other.toml").write_text('name = "good"\n' + RECIPE)

    assert ["recipes/other.toml: name: 'good' is also the name of recipes/good.toml; rename one of them"] == problems(
        project
    )


def test_a_file_name_that_cannot_name_a_run_is_refused(project: Path) -> None:
    """
    The file's name becomes a folder's name.
    """
    (project / "recipes" / "good.toml").rename(project / "recipes" / "my run.toml")

    assert [
        "recipes/my run.toml: 'my run' cannot name a run; use letters, digits, . _ - and begin with a letter or digit"
    ] == problems(project)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('["good"]', '["god"]', "project.recipes: no recipe is named 'god'; did you mean 'good'?"),
        ("[project]\n", "[projct]\n", "project: is missing; add a table [project]"),
        ("ranks = 2", "", "clusters.local: needs either ranks or hosts; ranks = 2 for this machine, hosts for several"),
        (
            "ranks = 2",
            'hosts = [{ssh = "-oProxyCommand=x", ips = ["10.0.0.1"]}]',
            "clusters.local.hosts[0].ssh: '-oProxyCommand=x' contains characters that are not allowed; "
            "use the name of the host in ~/.ssh/config, or user@host",
        ),
        (
            "ranks = 2",
            'backend = "jaccl"\nhosts = [{ssh = "a", rdma = [""]}, {ssh = "b", rdma = ["x", ""]}]',
            "clusters.local.hosts[0].rdma: has 1 slots for 2 hosts; give one device per host, \"\" for the host itself",
        ),
        (
            "ranks = 2",
            'hosts = [{ssh = "mac4\\n", ips = ["10.0.0.1"]}]',
            "clusters.local.hosts[0].ssh: 'mac4\\n' contains characters that are not allowed; "
            "use the name of the host in ~/.ssh/config, or user@host",
        ),
        ("ranks = 2", 'ranks = 2\nenvs = ["HF_TOKEN=hf_x"]', "clusters.local.envs: contains the secret HF_TOKEN, which "
         "would be written to hostfile.json; export HF_TOKEN: every rank gets it from this process"),
        ('kind = "nano"', 'kind = "nano"\nheads = 3', "models.nano: width 64, heads 3 and kv_heads 1 do not divide; "
         "make width a multiple of heads, and heads a multiple of kv_heads"),
        ('kind = "nano"', 'kind = "path"', "models.nano.path: is missing; give the mlx-lm folder of the model"),
        ('kind = "nano"', 'kind = "hub"', 'models.nano.repo: is missing; give it as "owner/name"'),
        ('"prompt.j2"', '"prompt.j2"\nvalid = 0.5\ntest = 0.5', "datasets.rows: valid and test leave no train rows; "
         "make their sum smaller than 1, as 0.1 and 0.1"),
        ('kind = "chatml"', 'kind = "chatml"\nconstants = { a = 2024-01-01, b = 1, c = true, d = "x" }',
         "datasets.rows.sources[0].constants.a: must be text in quotes or a number or true or false, "
         "is datetime.date(2024, 1, 1); change its type"),
        ('kind = "chatml"', 'kind = "chatml"\nconstants = { a = inf }', "datasets.rows.sources[0].constants.a: is inf; "
         "give a finite number"),
        ('kind = "chatml"', 'kind = "chatml"\nreferences = "r"', "datasets.rows.sources[0].references: "
         "means nothing for kind chatml; take it out; it is for rows"),
        ('template = "prompt.j2"\n[[datasets.rows.sources]]\nkind = "chatml"',
         '[[datasets.rows.sources]]\nkind = "rows"', "datasets.rows.template: is missing; "
         "name the Jinja2 file of the user message"),
        ('"prompt.j2"', '"prompt.j2"\northography = "ifa"', "datasets.rows.orthography: is 'ifa'; use one of: "
         "bridge-toneless, standard-toned; or describe it in an orthography_table of its own"),
        ("[models.nano]", '[models."a b"]', "models.a b: 'a b' contains characters that are not allowed; "
         "use letters, digits, . _ - and begin with a letter or digit"),
        ('"prompt.j2"', '"prompt.j2"\northography_table = {letters = "a", marks_per_letter = [1, 2, 3]}',
         "datasets.rows.orthography_table.marks_per_letter: has 3 items; give at most 2"),
        ('kind = "chatml"', 'kind = "chatml"\nreference_side = ["partition"]',
         "datasets.rows.sources[0].reference_side: names partition, which prompts show; "
         "name telemetry, as telemetry.cer_edits"),
    ],
)  # fmt: skip
def test_a_wrong_project_file_is_reported_with_its_hint(project: Path, old: str, new: str, expected: str) -> None:
    """
    One bad table stops the build before any stage, and says where.
    """
    (project / "thunder.toml").write_text(PROJECT.replace(old, new, 1))

    assert f"thunder.toml: {expected}" in problems(project)


def test_every_problem_of_every_file_is_reported_at_once(project: Path) -> None:
    """
    Correcting one mistake per run would cost a user ten runs.
    """
    (project / "thunder.toml").write_text(PROJECT.replace('"nano"', '"nan"'))
    (project / "recipes" / "good.toml").write_text(RECIPE + "seed = -1\n")
    (project / "recipes" / "other.toml").write_text("")

    assert [
        "thunder.toml: models.nano.kind: is 'nan'; did you mean 'nano'?",
        "recipes/good.toml: train.seed: is -1; give at least 0",
        "recipes/other.toml: is empty; start from another recipe",
    ] == problems(project)


def write_manifest(project: Path, train_rows: int, valid_rows: int = 1) -> None:
    """A dataset manifest as the data stage would have left it."""
    (project / "rows.jsonl").write_text("{}\n")
    manifest = {
        "splits": {"train": {"rows": train_rows}, "valid": {"rows": valid_rows}},
        "sources": [{"files": [{"path": "rows.jsonl", "sha256": files.sha256(project / "rows.jsonl")}]}],
        "split": {"seed": 0, "valid": 0.1, "test": 0.1},
    }
    files.write_json(project / "data" / "rows" / "manifest.json", manifest)


def test_a_batch_larger_than_the_rows_is_refused(project: Path) -> None:
    """
    Two ranks of 4 rows need 8; mlx-lm would fail after loading the model on every rank.
    """
    write_manifest(project, train_rows=5)
    (project / "recipes" / "good.toml").write_text(RECIPE + "batch_size = 4\n")

    assert [
        "recipes/good.toml: train.batch_size: needs 8 rows in a step of 2 ranks, and dataset 'rows' has 5 train "
        "rows; give at most 2, or add rows"
    ] == problems(project)


@pytest.mark.parametrize(
    ("rows", "keys", "expected"),
    [
        (5, "global_batch_size = 8", "global_batch_size: needs 8 rows {has} 5 train rows; give at most 5, or add rows"),
        (1, "", "batch_size: needs 2 rows {has} 1 train rows; use fewer ranks, or add rows"),
        (
            5,
            "grad_accumulation = 9",
            "batch_size: needs 18 rows {has} 5 train rows; use fewer ranks or a smaller grad_accumulation, or add rows",
        ),
        (0, "", "batch_size: needs 2 rows {has} 0 train rows; add rows"),
    ],
)
def test_a_hint_for_few_rows_can_be_followed(project: Path, rows: int, keys: str, expected: str) -> None:
    """
    No batch has 0 rows.
    """
    write_manifest(project, rows)
    (project / "recipes" / "good.toml").write_text(f"{RECIPE}{keys}\n")

    has = "in a step of 2 ranks, and dataset 'rows' has"
    assert [f"recipes/good.toml: train.{expected.format(has=has)}"] == problems(project)


def test_patience_needs_validation_rows(project: Path) -> None:
    """
    A training that was to stop early would run to its end.
    """
    write_manifest(project, train_rows=5, valid_rows=0)
    (project / "recipes" / "good.toml").write_text(RECIPE + "patience = 3\n")

    what = "counts validations, and dataset 'rows' has no validation row"
    hint = "set it to 0, or give the dataset validation rows"
    assert [f"recipes/good.toml: train.patience: {what}; {hint}"] == problems(project)


@pytest.mark.parametrize("change", [lambda p: (p / "rows.jsonl").write_text("{}\n{}\n"), lambda p: None])
def test_an_old_dataset_manifest_does_not_block_the_build(project: Path, change: Callable[[Path], object]) -> None:
    """
    When the sources changed since, only the data stage can tell how many rows there will be.
    """
    write_manifest(project, train_rows=5)
    change(project)
    text = (
        PROJECT if (project / "rows.jsonl").read_text() != "{}\n" else PROJECT.replace("[[data", "valid = 0.2\n[[data")
    )
    (project / "thunder.toml").write_text(text)
    (project / "recipes" / "good.toml").write_text(RECIPE + "batch_size = 4\n")

    assert 4 == load(project).recipes["good"].train.batch_size


@pytest.mark.parametrize("file", ["thunder.toml", "recipes/good.toml"])
def test_a_byte_order_mark_is_not_part_of_a_file(project: Path, file: str) -> None:
    """
    Editors on Windows begin files with it, and TOML 1.0 allows readers to skip it.
    """
    path = project / file
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert 4 == load(project).recipes["good"].train.num_iters


@pytest.mark.parametrize("depth", [300, 1000, 3000, 100000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a = ", "}")], ids=["lists", "tables"])
def test_a_deeply_nested_file_is_reported(project: Path, depth: int, opening: str, closing: str) -> None:
    """
    Python's parser, Cerberus or json would end in a RecursionError, each at a depth of its own.
    """
    (project / "recipes" / "good.toml").write_text(f"x = {opening * depth}1{closing * depth}\n")

    assert all(line.startswith("recipes/good.toml: ") for line in problems(project))


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"num_hidden_layers": "two"}', '{"text_config": 1}', "\udcff"])
def test_a_wrong_model_stops_only_the_recipes_that_use_it(project: Path, content: str) -> None:
    """
    A config.json that was a list stopped every command; a model's folder comes from anyone.
    """
    (project / "evil").mkdir()
    (project / "evil" / "config.json").write_text(content, errors="surrogateescape")
    table = '[models.evil]\nkind = "path"\npath = "evil"\n'
    (project / "thunder.toml").write_text((project / "thunder.toml").read_text() + table)
    (project / "recipes" / "bad.toml").write_text(RECIPE.replace("nano", "evil"))

    loaded, broken = usable(project)

    assert ["good"] == [*loaded.recipes]
    assert ["bad"] == [each.name for each in broken]
    assert str(broken[0]).startswith(f"{project}/evil/config.json: ")
