"""in-toto statements about a run: what they hold, what is refused, and what a reproduction says of them."""

import copy
import json
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import Copy, add_lock
from thunder_train import ThunderError
from thunder_train.config.load import load
from thunder_train.core import files
from thunder_train.pipeline import provenance
from thunder_train.reproduce import attestation, reproduce
from thunder_train.reproduce.compare import DIFFERENT, IDENTICAL, IMPOSSIBLE

ADAPTER = "runs/smoke/adapter/adapters.safetensors"
FILE = "runs/smoke/attestation.json"
OTHER = {"sha256": "5" * 64}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def attested(built: Copy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A built project with a statement about its run. Tests change none of it."""
    project = tmp_path_factory.mktemp("attested") / "project"
    shutil.copytree(built.path, project)
    add_lock(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        provenance.attest(load(project).recipes["smoke"], project)
        yield project


def changed(project: Path, tmp_path: Path, change: Change) -> Path:
    """The project's statement after a change."""
    statement = files.read_json(project / FILE)
    change(statement)
    files.write_json(tmp_path / "attestation.json", statement)
    return tmp_path / "attestation.json"


def build(statement: dict[str, Any]) -> dict[str, Any]:
    """Its build definition."""
    definition: dict[str, Any] = statement["predicate"]["buildDefinition"]
    return definition


def held(statement: dict[str, Any]) -> dict[str, Any]:
    """The manifest in it."""
    manifest: dict[str, Any] = statement["predicate"]["runDetails"]["byproducts"][-1]["annotations"]["manifest"]
    return manifest


def test_a_statement_has_the_fields_of_in_toto_and_slsa(attested: Path) -> None:
    """Other tools read these names and no others; each output is there with the hash of its file."""
    statement = files.read_json(attested / FILE)
    details = statement["predicate"]["runDetails"]

    assert {"_type", "subject", "predicateType", "predicate"} == statement.keys()
    assert ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1") == (
        statement["_type"],
        statement["predicateType"],
    )
    assert {"buildDefinition", "runDetails"} == statement["predicate"].keys()
    assert {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"} == build(statement).keys()
    assert {"builder", "metadata", "byproducts"} == details.keys()
    assert {"invocationId": held(statement)["run_id"]} == details["metadata"]
    assert [(each["name"], files.sha256(attested / each["name"])) for each in statement["subject"]] == [
        (each["name"], each["digest"]["sha256"]) for each in statement["subject"]
    ]
    assert {ADAPTER, "runs/smoke/eval.json", "runs/smoke/report.html"} < {each["name"] for each in statement["subject"]}


def test_every_input_is_there_by_its_hash(attested: Path) -> None:
    """Sources, templates, base model, code and packages: whoever trusts one of them less must see that it was used."""
    given = build(files.read_json(attested / FILE))["resolvedDependencies"]
    roles = [each["annotations"]["role"] for each in given]
    on_disk = [each for each in given if each["annotations"]["role"] != "code"]

    assert [*["source"] * 3, "prompt template", *["model"] * 5, *["code"] * 4, "packages"] == roles
    assert [files.sha256(attested / each["name"]) for each in on_disk] == [each["digest"]["sha256"] for each in on_disk]
    assert all(files.is_sha256(each["digest"]["sha256"]) for each in given)


def test_it_names_no_place_host_or_time_and_is_the_same_each_time(attested: Path, monkeypatch: Any) -> None:
    """Whoever publishes it publishes nothing else, and two builders of one run can compare the bytes."""
    before = (attested / FILE).read_bytes()
    words = json.dumps(list(_texts(files.read_json(attested / FILE))))
    monkeypatch.chdir(attested)
    provenance.attest(load(attested).recipes["smoke"], attested)

    assert before == (attested / FILE).read_bytes() == files.canonical(json.loads(before)).encode()
    assert [] == [word for word in (str(attested), str(Path.home()), platform.node(), "/tmp") if word and word in words]
    assert not {"startedOn", "finishedOn"} & set(words.split('"'))


def _texts(value: Any) -> Iterator[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield from (value,) if isinstance(value, str) else (text for each in inner for text in _texts(each))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (ADAPTER, "but the build made"),
        ("data/agp-nko-corrections/valid.jsonl", "but the build made"),
        ("runs/models/nano/files/model.safetensors", "but the build made"),
        ("data/sources/policy_smoke_http_fewshot_rust_gate.json", "but the run used"),
        ("templates/prompts/correct.j2", "but the run used"),
    ],
)
def test_a_file_that_changed_since_the_build_is_named(attested: Path, monkeypatch: Any, path: str, what: str) -> None:
    """A statement says that the bytes of today are those of the build: each is read again."""
    kept = (attested / path).read_bytes()
    sha256 = files.sha256(attested / path)
    monkeypatch.chdir(attested)
    try:
        (attested / path).write_bytes(kept + b" ")
        with pytest.raises(ThunderError) as caught:
            provenance.attest(load(attested).recipes["smoke"], attested)
        now = files.sha256(attested / path)
    finally:
        (attested / path).write_bytes(kept)

    hint = "run `./doit manifest:smoke`, and attest again"
    assert f"{path}: has changed: its sha256 is {now}, {what} {sha256}; {hint}" == str(caught.value)


def test_a_manifest_whose_figures_are_not_those_of_the_files_is_not_attested(attested: Path, monkeypatch: Any) -> None:
    """Metrics are no part of run_id: an edited one would otherwise be stated as verified."""
    path = attested / "runs/smoke/manifest.json"
    kept = path.read_bytes()
    run = json.loads(kept)
    run["metrics"]["trainable_parameters"] = 1
    monkeypatch.chdir(attested)
    try:
        files.write_json(path, run)
        with pytest.raises(ThunderError, match=r"metrics\.trainable_parameters is 1, but the files of the run give "):
            provenance.attest(load(attested).recipes["smoke"], attested)
    finally:
        path.write_bytes(kept)


ATTACKS: dict[str, tuple[Change, str]] = {
    "another output": (
        lambda one: one["subject"][2]["digest"].update(sha256="0" * 64),
        "subject.2.digest.sha256: is '\"" + "0" * 64 + "\"', but its manifest says ",
    ),
    "no hash": (lambda one: one["subject"][0]["digest"].update(sha256="x"), "adapter/README.md: has the digest 'x', "),
    "another hash function": (
        lambda one: one["subject"].__setitem__(2, {**one["subject"][2], "digest": {"md5": "0" * 32}}),
        "subject.2.digest.md5: is no part of a statement about a run",
    ),
    "one output less": (lambda one: one["subject"].pop(2), "subject.2.digest.sha256: is "),
    "one output more": (
        lambda one: one["subject"].append({"name": "evil", "digest": {"sha256": "0" * 64}}),
        "subject.10.digest.sha256: is no part of a statement about a run",
    ),
    "a path on this machine": (
        lambda one: one["subject"][2].update(name="/etc/passwd"),
        "subject.2.name: is '\"/etc/passwd\"', but its manifest says ",
    ),
    "a path on this machine in the manifest": (
        lambda one: held(one)["outputs"][0].update(path="/etc/passwd"),
        "outputs: '/etc/passwd' is not a printable path inside the project",
    ),
    "a key more": (lambda one: one.update(evil=1), "evil: is no part of a statement about a run"),
    "a time": (
        lambda one: one["predicate"]["runDetails"]["metadata"].update(startedOn="2026-01-01T00:00:00Z"),
        "predicate.runDetails.metadata.startedOn: is no part of a statement about a run",
    ),
    "another parameter": (
        lambda one: build(one)["externalParameters"]["recipe"]["train"].update(seed=7),
        "recipe.train.seed: is '7', but its manifest says ",
    ),
    "another parameter in the manifest": (
        lambda one: held(one)["recipe"]["train"].update(seed=7),
        "run_id: is ",
    ),
    "another metric": (
        lambda one: held(one)["metrics"].update(trainable_parameters=1),
        "byproducts.3.digest.sha256: is ",
    ),
    "one is true": (
        lambda one: build(one)["externalParameters"]["recipe"]["cluster"].update(local=1),
        "cluster.local: is '1', but its manifest says 'true'",
    ),
    "another builder": (
        lambda one: one["predicate"]["runDetails"]["builder"].update(id="https://example.com"),
        "builder.id: is '\"https://example.com\"', but its manifest says ",
    ),
    "a version that steers a terminal": (
        lambda one: one["predicate"]["runDetails"]["builder"]["version"].update({"thunder-train": "\x1b[2J"}),
        "builder.version: is '\\x1b[2J'",
    ),
    "another statement": (
        lambda one: one.update(_type="x"),
        "_type: is 'x', but this version reads https://in-toto.io",
    ),
    "another predicate": (
        lambda one: one.update(predicateType=["x"]),
        "predicateType: is ['x'], but this version reads https://slsa.dev",
    ),
    "subjects of another type": (
        lambda one: one.update(subject="x"),
        "attestation.json: is not a statement about a run: Expected `array`, got `str` - at `$.subject`",
    ),
    "digests of another type": (
        lambda one: one["subject"][0].update(digest=["x"]),
        "attestation.json: is not a statement about a run: Expected `object`, got `array`",
    ),
    "no predicate": (lambda one: one.pop("predicate"), "attestation.json: is not a statement about a run: "),
    "no manifest": (
        lambda one: one["predicate"]["runDetails"]["byproducts"].pop(),
        "attestation.json: needs one manifest of a run among its byproducts",
    ),
    "two manifests": (
        lambda one: one["predicate"]["runDetails"]["byproducts"].append(
            one["predicate"]["runDetails"]["byproducts"][-1]
        ),
        "attestation.json: needs one manifest of a run among its byproducts",
    ),
    "a list for a manifest": (
        lambda one: one["predicate"]["runDetails"]["byproducts"][-1]["annotations"].update(manifest=[1]),
        "attestation.json: needs one manifest of a run among its byproducts",
    ),
    "no code": (
        lambda one: build(one).update(resolvedDependencies=build(one)["resolvedDependencies"][:9]),
        "requirements.lock: has the digest '', which is no sha256",
    ),
    "deep": (
        lambda one: one.update(evil=_deep(400)),
        "is no part of a statement about a run",
    ),
}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize("case", sorted(ATTACKS))
def test_what_does_not_follow_from_its_manifest_is_refused(attested: Path, tmp_path: Path, case: str) -> None:
    """It may come from anyone: what nobody can verify must not stand beside what was."""
    change, expected = ATTACKS[case]

    with pytest.raises(ThunderError) as caught:
        attestation.read(changed(attested, tmp_path, change))

    assert expected in str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"_type": 3}', '{"_type": "\\ud800"}', "[" * 100_000, '{"_type": NaN}'])
def test_garbage_is_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    """Not JSON, half a surrogate, endless nesting."""
    (tmp_path / "attestation.json").write_text(text)

    with pytest.raises(ThunderError):
        attestation.read(tmp_path / "attestation.json")


def test_a_huge_one_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A statement has kilobytes; a gigabyte must not fill the memory."""
    with open(tmp_path / "attestation.json", "wb") as file:
        file.truncate(1 << 31)

    with pytest.raises(ThunderError, match="has more than 67108864 bytes"):
        attestation.read(tmp_path / "attestation.json")


def test_a_missing_one_says_what_makes_it(tmp_path: Path) -> None:
    """Its name tells that it is no manifest."""
    with pytest.raises(ThunderError, match=r"is missing; run `./doit attest:smoke`"):
        attestation.read(tmp_path / "smoke/attestation.json")


def test_each_revision_of_another_machine_is_believed_only_as_a_hash(attested: Path, tmp_path: Path) -> None:
    """A proof renews the hash of a revision, so the verifier's may be another; edited code is its own hash."""
    run = held(files.read_json(attested / FILE))
    is_revision = run["code"]["train"].startswith("revision ")
    path = changed(
        attested, tmp_path, lambda one: build(one)["resolvedDependencies"][12]["digest"].update(sha256="5" * 64)
    )

    assert "thunder_train: train" == build(files.read_json(path))["resolvedDependencies"][12]["name"]
    if is_revision:
        assert run == attestation.read(path)[0]
    else:
        with pytest.raises(ThunderError, match="but its manifest says"):
            attestation.read(path)


def _rebuilds(monkeypatch: Any, change: Change) -> None:
    """Let the next reproduction's build give the run of the statement, after a change."""

    def build_again(folder: Path, name: str) -> None:
        run = copy.deepcopy(reproduced[0])
        change(run)
        files.write_json(folder / f"runs/{name}/manifest.json", run)

    read, reproduced = attestation.read, list[dict[str, Any]]()

    def remembered(path: Path) -> Any:
        run, apart = read(path)
        reproduced.append(copy.deepcopy(run))
        return run, apart

    monkeypatch.setattr(attestation, "read", remembered)
    monkeypatch.setattr(reproduce, "_build", build_again)


def test_outputs_that_come_out_the_same_are_identical(attested: Path, monkeypatch: Any) -> None:
    """The statement alone is enough; pages that also show when a run was made are named, not compared."""
    _rebuilds(monkeypatch, lambda run: None)

    verdict = reproduce.reproduce(attested / FILE, attested)

    assert (IDENTICAL, "runs/smoke/report.html") == (verdict.word, verdict.apart[1])


def test_another_output_is_named(attested: Path, monkeypatch: Any) -> None:
    """The verdict is that of any manifest: the first file that differs."""
    _rebuilds(monkeypatch, lambda run: run["outputs"][1].update(sha256="0" * 64))

    verdict = reproduce.reproduce(attested / FILE, attested)

    assert (DIFFERENT, ADAPTER) == (verdict.word, verdict.first)


def test_a_statement_whose_inputs_are_not_here_is_impossible(attested: Path, tmp_path: Path) -> None:
    """As with a manifest, before anything is built."""
    project = tmp_path / "other"
    shutil.copytree(attested, project)
    Copy(project).edit("data/sources/policy_smoke_http_fewshot_rust_gate.json", "row_id", "row-id")

    verdict = reproduce.reproduce(attested / FILE, project)

    assert (IMPOSSIBLE, 1) == (verdict.word, len(verdict.problems))


@pytest.mark.ranks
def test_the_task_attests_and_says_so(project: Copy) -> None:
    """It builds what is stale first, and a program reads its answer."""
    add_lock(project.path)

    done = project.doit("attest:smoke", "--json")

    answer = json.loads(done.output.splitlines()[-1])
    assert (0, ["attest:smoke"]) == (done.status, done.ran), done.output
    assert ("thunder.attested/1", FILE, 10, 14) == tuple(answer[key] for key in ("schema", "file", "outputs", "inputs"))
    assert files.sha256(project.path / FILE) == answer["sha256"]


@pytest.mark.ranks
@pytest.mark.slow
def test_a_run_is_made_again_from_its_statement(project: Copy) -> None:
    """The whole way, without the manifest."""
    add_lock(project.path)
    project.doit("attest:smoke")
    (project.path / FILE).rename(project.path / "given.json")
    shutil.rmtree(project.path / "runs/smoke")

    done = project.doit("reproduce", "-m", "given.json")

    assert 0 == done.status, done.output
    assert ": identical\n15 of 15 files and " in done.output
    assert "\nnot compared, because they also show when and where a run was made: runs/smoke/report.md, " in done.output
