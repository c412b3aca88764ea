"""``distil export``: folders that load without us and say the same, their cards, and what a hub receives."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants

from distil.cli import main
from distil.data.columns import ALPACA, ALPACA_CONTEXT
from distil.data.dolly15k import Dolly15kConfig
from distil.models.sources import mirror_folder
from distil.origins import data_of
from distil.products.finished_run import open_run
from distil.products.loading import load_product
from distil.report.run_directory import GONE
from distil.results import seal
from tests.end_to_end.ask_merged import PROMPT
from tests.end_to_end.fake_hub import OWNER, TOKEN, FakeHub
from tests.end_to_end.test_verbs import Runs

EXPORTED: dict[str, tuple[str, list[str]]] = {
    "none": ("none", []),
    "lora": ("lora", []),
    "lora-pruned": ("lora-pruned", []),
    "lora-merged": ("lora", ["--merge"]),
    "prefix": ("prefix", []),
    "qlora-4": ("qlora-4", []),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    made = Runs(tmp_path_factory.mktemp("export"))
    for folder in (made.bases, made.teachers):
        (folder / "llama" / "README.md").write_text("---\nlicense: mit\n---\n# A llama\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def exported(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each of EXPORTED."""
    folder = tmp_path_factory.mktemp("exported")
    for name, (case, more) in EXPORTED.items():
        assert main(["export", str(runs.run(case)), "--output", str(folder / name), *more]) == 0
    return {name: folder / name for name in EXPORTED}


def samples_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def ask(exported: dict[str, Path], folder: Path, **environment: str) -> dict[str, dict[str, Any]]:
    """What the code of each card prints in a fresh process, and the logits of the model that it loads."""
    cells = {name: str(place / "README.md") for name, place in exported.items()}
    (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    script = Path(__file__).with_name("ask_exported.py")
    command = [sys.executable, str(script), str(folder / "cells.json"), str(folder / "answers.pt")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, Any]] = torch.load(folder / "answers.pt")
    return answers


def apart(logits: torch.Tensor, run: Path) -> float:
    """How far ``logits`` lie from those of the run's own student, as a share of the largest."""
    with torch.no_grad():
        wanted = load_product(open_run(run))(input_ids=torch.tensor([PROMPT])).logits
    return float((logits - wanted).abs().max() / wanted.abs().max())


def test_the_cards_code_loads_it_without_us_and_says_what_the_run_said(
    runs: Runs, exported: dict[str, Path], tmp_path: Path
) -> None:
    """Logits of the run's student; and the answer that the run wrote to its first prompt, to the word."""
    answers = ask(exported, tmp_path)
    for name, (case, _) in EXPORTED.items():
        run = runs.run(case)
        far = apart(answers[name]["logits"], run)
        assert far <= (0.05 if case.startswith("qlora") else 1e-4), name
        if not case.startswith("qlora"):
            assert answers[name]["printed"] == samples_of(run)[0]["student_after"], name


@pytest.mark.parametrize("name", EXPORTED)
def test_the_card_says_what_the_run_measured(name: str, runs: Runs, exported: dict[str, Path]) -> None:
    folder, run = exported[name], runs.run(EXPORTED[name][0])
    card = ModelCard.load(folder / "README.md")
    adapter = name not in ("none", "lora-merged")
    assert card.data.license == "mit"  # as the source model's own card says
    assert card.data.library_name == ("peft" if adapter else "transformers")
    assert {"distillation", "kd"} <= set(card.data.tags)
    assert card.data.get("base_model") is None  # a folder of this machine is no name on a hub
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    told = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert told == pytest.approx(
        {k: v for k, v in results["student_after"].items() if v is not None}, rel=1e-5
    )
    first = next(iter(results["metrics"].values()))
    nll = next(iter(results["metrics"]))
    row = next(line for line in card.text.splitlines() if line.startswith(f"| {nll} "))
    shown = [format(results[who][nll], first["format"]) for who in ("teacher", "student_before")]
    after = f"**{format(results['student_after'][nll], first['format'])}**"
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == [*shown, after]
    assert "2 · KL(teacher ‖ student) at T = 2" in card.text
    assert "temperature T = 2, kd_loss_weight α = 0.5" in card.text
    assert "3 of 4 rows, learning rate 0.03" in card.text


@pytest.mark.parametrize("name", ["none", "lora"])
def test_the_verbs_want_the_run_and_not_what_was_exported_of_it(
    name: str, exported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["generate", "--prompt", "w3"], ["evaluate", "--data", "rows.jsonl"]):
        assert main([words[0], str(exported[name]), *words[1:]]) == 2
        assert "is what distil export wrote, for transformers and PEFT" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPORTED)
def test_nothing_in_it_names_a_place_of_this_machine(
    name: str, runs: Runs, exported: dict[str, Path]
) -> None:
    for file in filter(Path.is_file, exported[name].rglob("*")):
        content = file.read_bytes()
        for place in (runs.folder, exported[name].parent, Path.home()):
            assert str(place).encode() + b"/" not in content, file
    config = yaml.safe_load((exported[name] / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["train_file"] == "/path/to/rows.jsonl"
    assert config["method"]["name"] == "kd"


def test_the_base_travels_as_the_adapter_was_trained_on_it(exported: dict[str, Path]) -> None:
    config = json.loads((exported["lora-pruned"] / "base" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 2
    assert not (exported["lora-merged"] / "base").exists()
    assert not (exported["none"] / "base").exists()


def test_an_adapter_on_a_model_of_the_hub_names_it(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here from our mirror of it; elsewhere, where the hub's own cache has it, the card's code loads it."""
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(runs.bases / "llama", mirror_folder("org/tiny"))
    output = tmp_path / "outputs"
    command = ["run", *runs.arguments(output), "peft=qlora", "model.student.path=org/tiny"]
    assert main(command) == 0
    (run,) = (output / "default").iterdir()
    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "base").exists()
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "org/tiny"
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("org/tiny", "adapter")
    assert card.data.license == "mit"
    cached = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(runs.bases / "llama", cached / "snapshots" / "0")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0", encoding="utf-8")
    answer = ask({"qlora": tmp_path / "out"}, tmp_path, HF_HUB_CACHE=str(tmp_path / "hub"))["qlora"]
    assert apart(answer["logits"], run) <= 0.05  # products in 4 bits are rounded otherwise each time


HIDDEN = ["planted-0123456789abcdef", "hf_" + "planted" * 5, "/srv/planted/place", "/srv/planted/rows.jsonl"]
"""A secret of the environment, a token that looks like one, a place, and a file that the config names."""


@pytest.fixture
def planted(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of an adapter that has them all in its texts."""
    monkeypatch.setenv("PLANTED_API_KEY", HIDDEN[0])
    run, place = runs.copy("lora", tmp_path), HIDDEN[2]
    everything = " and ".join([*HIDDEN, str(run)])
    lines = [sample | {"prompt": everything, "student_after": everything} for sample in samples_of(run)]
    (run / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["train_file"], config["data"]["prompt_template"] = HIDDEN[3], f"{HIDDEN[0]} {{prompt}}"
    config["model"]["teacher"]["path"] = place
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, change in {
        "results.json": {"notes": [everything]},
        "environment.json": {"command": f"distil run data.train_file={HIDDEN[3]} my_token={HIDDEN[1]}"},
        "student/tokenizer_config.json": {"name_or_path": place},
    }.items():
        content = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps(content | change), encoding="utf-8")
    seal(run)
    return run


def test_no_secret_and_no_place_of_the_run_is_exported(planted: Path, tmp_path: Path) -> None:
    assert main(["export", str(planted), "--output", str(tmp_path / "out")]) == 0
    for file in filter(Path.is_file, (tmp_path / "out").rglob("*")):
        content = file.read_bytes()
        assert [each for each in [*HIDDEN, str(planted)] if each.encode() in content] == [], file
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "distil run data.train_file=/path/to/rows.jsonl my_token=***" in card
    assert "*** and *** and /path/to/place and /path/to/rows.jsonl and /path/to/run" in card


def test_a_secret_where_nothing_of_ours_writes_ends_it(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (planted / "student" / "chat_template.jinja").write_text(f"{{# {HIDDEN[0]} #}}", encoding="utf-8")
    assert main(["export", str(planted), "--output", str(tmp_path / "out")]) == 1
    assert "chat_template.jinja, line 1, holds a secret" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_card_leaves_out_what_is_said_to_who_ran_it(runs: Runs, tmp_path: Path) -> None:
    run = runs.copy("none", tmp_path)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["notes"] = [
        "The teacher is worse: nll 9.5, the student 5.7. Are model.teacher.path and the other the right way?",
        "Column q is written in the Alpaca form (### Response:). Without the headings: call it prompt.",
        "30 of 40 training rows are longer than data.max_length=32 and were cut. Set data.max_length=64.",
        "The student was made of these layers: 0, 2 (model.student.keep_layers).",
    ]
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    seal(run)
    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    said = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "The teacher is worse: nll 9.5, the student 5.7. Column q is written in the Alpaca form" in said
    assert "longer than data.max_length=32 and were cut. The student was made of these layers: 0, 2" in said
    assert not re.search(r"right way|Without the headings|Set data", said)


def test_a_card_counts_the_rows_of_all_processes_and_names_the_file_s_form(
    runs: Runs, tmp_path: Path
) -> None:
    run = runs.copy("none", tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["trainer"]["warmup_steps"] = 0.25
    config["data"]["train_file"] = "rows.csv"
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    facts = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    (run / "environment.json").write_text(json.dumps(facts | {"processes": 3}), encoding="utf-8")
    seal(run)
    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "3 of 12 rows, " in card.text
    assert "the first 25 % warm-up" in card.text
    assert {each.dataset_type for each in card.data.eval_results} == {"csv"}


def test_data_is_of_the_hub_only_where_they_came_from_it(tmp_path: Path) -> None:
    """A file in place of the usual set is a file."""
    usual = data_of(Dolly15kConfig())
    assert usual.hub == "databricks/databricks-dolly-15k"
    (tmp_path / "mine.jsonl").touch()
    own = data_of(Dolly15kConfig(path=str(tmp_path / "mine.jsonl")))
    assert (own.hub, own.name) == (None, "mine.jsonl")


OWN = "Once upon a time"
FORMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "headings": ({"kind": "pair", "prompt": "prompt", "headings": True}, "w3", ALPACA.format(prompt=OWN)),
    "context": (
        {"kind": "pair", "prompt": "prompt", "context": "about", "headings": True},
        "w3",
        ALPACA_CONTEXT.format(prompt=OWN, context=OWN),
    ),
    "template": ({"kind": "pair", "template": "Q: {q} A:", "response": "r"}, "w3", f"Q: {OWN} A:"),
    "closed": ({"kind": "pair", "prompt": "ask", "response": "r"}, "w3\n", f"{OWN}\n"),
    "text": ({"kind": "text", "text": "text"}, "w3\n", OWN),
}
"""Of runs: the shape of their rows, how their prompts end, and a prompt that is no row's."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_of_the_card_s_own_has_the_form_of_the_run_s(
    form: str, chat: bool, runs: Runs, tmp_path: Path
) -> None:
    """A chat template takes the place of headings and endings, but not of a template; text has none."""
    shape, written, wanted = FORMS[form]
    run = runs.copy("none", tmp_path)
    lines = [sample | {"prompt": written} for sample in samples_of(run)]
    (run / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["data"]["shape"] = shape
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if chat:
        template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        (run / "student" / "chat_template.jinja").write_text(template, encoding="utf-8")
    seal(run)
    assert main(["export", str(run), "--output", str(tmp_path / "out"), "--samples", "0"]) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    if chat and form != "text":
        own = json.dumps({"template": wanted, "context": f"{OWN}\n\n{OWN}"}.get(form, OWN))
        assert f'messages = [{{"role": "user", "content": {own}}}]\n' in card
    else:
        assert f"prompt = {json.dumps(wanted)}\n" in card
        assert "apply_chat_template" not in card


def test_several_turns_are_shown_as_several(runs: Runs, tmp_path: Path) -> None:
    run = runs.copy("none", tmp_path)
    prompts = ["system: Be kind.\nuser: Who?", "What now?", "Then?"]
    lines = [sample | {"prompt": prompt} for sample, prompt in zip(samples_of(run), prompts, strict=False)]
    (run / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["data"]["shape"] = {"kind": "messages", "messages": "messages"}
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (run / "student" / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    seal(run)
    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    turns = ['{"role": "system", "content": "Be kind."}', '{"role": "user", "content": "Who?"}']
    assert f"messages = [\n    {turns[0]},\n    {turns[1]},\n]\n" in card
    for sample in lines:
        sample["prompt"] = "system: Be kind.\nuser: Who?"
    (run / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    seal(run)
    assert main(["export", str(run), "--output", str(tmp_path / "none"), "--samples", "0"]) == 0
    card = (tmp_path / "none" / "README.md").read_text(encoding="utf-8")
    assert f'put yours first.\nmessages = [{{"role": "user", "content": "{OWN}"}}]\n' in card
    assert "Be kind" not in card


def test_what_it_may_be_told(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(runs.run("none")), "--output", str(tmp_path / "out"), "--samples", "0"]
    assert main([*command, "--license", "cc-by-4.0"]) == 0
    assert "a plain model" in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "## Samples" not in card.text
    assert samples_of(runs.run("none"))[0]["prompt"] not in card.text, "rows may be private"
    written = {file.name: file.read_bytes() for file in (runs.run("none") / "student").iterdir()}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == written["model.safetensors"]


def test_without_output_it_goes_into_the_run(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.copy("none", tmp_path)
    assert main(["export", str(run / "student")]) == 0
    assert (run / "export" / "README.md").is_file()
    capsys.readouterr()
    assert main(["export", str(run)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {run / 'export'} is there already."), said  # before anything loads
    assert "--output DIR" in said
    assert main(["export", str(run), "--push", "me/small"]) == 2
    assert f"To upload it as it is: hf upload me/small {run / 'export'} --private." in capsys.readouterr().err


class TestRefused:
    @pytest.fixture
    def refuse(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def refuse(run: Path, *more: str) -> str:
            before = set(tmp_path.rglob("*"))
            assert main(["export", str(run), "--output", str(tmp_path / "out"), *more]) == 2
            assert set(tmp_path.rglob("*")) == before
            return " ".join(capsys.readouterr().err.split())

        return refuse

    def test_no_run(self, refuse: Any, tmp_path: Path) -> None:
        assert "no such folder" in refuse(tmp_path / "nowhere")
        assert "is not a run directory" in refuse(tmp_path)

    def test_what_the_library_saved(self, refuse: Any, runs: Runs, tmp_path: Path) -> None:
        saved = Path(shutil.copytree(runs.bases / "llama", tmp_path / "saved"))
        assert "is a plain model already" in refuse(saved)
        (saved / "distillation_config.json").write_text('{"max_length": 512}', encoding="utf-8")
        said = refuse(saved)
        assert "no run measured it" in said
        assert f"hf upload OWNER/NAME {saved}" in said

    @pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
    def test_a_run_that_is_not_done(self, refuse: Any, runs: Runs, tmp_path: Path, status: str) -> None:
        run = runs.copy("none", tmp_path)
        told = json.loads((run / "status.json").read_text(encoding="utf-8"))
        (run / "status.json").write_text(json.dumps(told | {"status": status}), encoding="utf-8")
        said = refuse(run)
        assert f"this run is {GONE if status == 'running' else status}" in said
        assert "This command goes on with it" in said

    def test_an_output_with_something_in_it(self, refuse: Any, runs: Runs, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("", encoding="utf-8")
        assert "Give a folder that is absent or empty" in refuse(runs.run("none"))

    def test_merging_what_cannot_be(self, refuse: Any, runs: Runs) -> None:
        assert "has no adapter (peft=none)" in refuse(runs.run("none"), "--merge")
        assert "Leave --merge out" in refuse(runs.run("prefix"), "--merge")

    @pytest.mark.parametrize("given", ["Apache-2.0", "apache 2", ""])
    def test_a_license_that_no_hub_knows(self, refuse: Any, runs: Runs, given: str) -> None:
        assert "as in apache-2.0" in refuse(runs.run("none"), "--license", given)

    def test_public_without_push(self, refuse: Any, runs: Runs) -> None:
        assert "give both" in refuse(runs.run("none"), "--public")

    def test_pushing_without_a_token_or_network(
        self, refuse: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "HF_HUB_OFFLINE asks to stay off the network" in refuse(runs.run("none"), "--push", "mine")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            monkeypatch.delenv(name)
        said = refuse(runs.run("none"), "--push", "mine")
        assert "there is no token" in said
        assert "hf auth login" in said
        assert "--push a/b/c" in refuse(runs.run("none"), "--push", "a/b/c")


class TestPush:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            monkeypatch.delenv(name)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, when it was imported
        hub = FakeHub()
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
        hub.close()

    @pytest.mark.parametrize("public", [False, True])
    def test_all_of_it_arrives(
        self, hub: FakeHub, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], public: bool
    ) -> None:
        command = ["export", str(runs.run("lora")), "--output", str(tmp_path / "out"), "--push", "small"]
        assert main([*command, *(["--public"] if public else [])]) == 0
        name = f"{OWNER}/small"
        assert hub.private == {name: not public}
        files = {
            str(f.relative_to(tmp_path / "out")): f.read_bytes() for f in (tmp_path / "out").rglob("*.*")
        }
        assert hub.repositories[name] == files
        assert {"README.md", "config.yaml", "adapter_model.safetensors", "base/model.safetensors"} <= set(
            files
        )
        assert all(TOKEN.encode() not in content for content in files.values())
        card = files["README.md"].decode()
        assert f'name = "{name}"' in card
        assert f"# {name}" in card
        assert f"{hub.endpoint}/{name}  ({'public' if public else 'private'})" in capsys.readouterr().out

    def test_nothing_is_sent_unless_asked(self, hub: FakeHub, runs: Runs, tmp_path: Path) -> None:
        assert main(["export", str(runs.run("none")), "--output", str(tmp_path / "out")]) == 0
        assert hub.asked == []

    def test_a_repository_of_mine_gets_another_commit(self, hub: FakeHub, runs: Runs, tmp_path: Path) -> None:
        """Without what an adapter left there: transformers would put it onto the new model."""
        old = {
            "old.png": b"",
            "adapter_config.json": b"",
            "base/model.safetensors": b"",
            ".gitattributes": b"",
        }
        hub.repositories[f"{OWNER}/small"], hub.private[f"{OWNER}/small"] = old, True
        command = ["export", str(runs.run("none")), "--output", str(tmp_path / "out")]
        assert main([*command, "--push", f"{OWNER}/small"]) == 0
        assert "POST /api/repos/create" not in hub.asked
        there = set(hub.repositories[f"{OWNER}/small"])
        assert {"old.png", ".gitattributes", "model.safetensors", "config.json"} <= there
        assert not {"adapter_config.json", "base/model.safetensors"} & there

    @pytest.mark.parametrize(
        ("why", "told"),
        [
            ("token", "refuses the token"),
            ("public", "Add --public"),
            ("taken", f"not yours: the token speaks for {OWNER}"),
            ("closed", "cannot be reached"),
        ],
    )
    def test_what_the_hub_would_refuse_is_refused_before_anything_is_written(
        self,
        hub: FakeHub,
        runs: Runs,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        why: str,
        told: str,
    ) -> None:
        name = "bob/small" if why == "taken" else f"{OWNER}/small"
        if why == "token":
            monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 8)
        elif why == "closed":
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        else:
            hub.repositories[name], hub.private[name] = {}, False
        command = ["export", str(runs.run("none")), "--output", str(tmp_path / "out"), "--push", name]
        assert main(command) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert told in said
        assert "wrongwrong" not in said
        assert not list(tmp_path.iterdir())

    def test_a_name_under_somebody_else_is_forbidden_and_the_folder_stays(
        self, hub: FakeHub, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(runs.run("none")), "--output", str(tmp_path / "out"), "--push", "bob/new"]
        assert main(command) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "You don't have the rights under bob" in said
        assert "OWNER must be you or an organisation of yours" in said
        assert re.search(r"hf upload bob/new .*/out", said)
        assert (tmp_path / "out" / "README.md").is_file()
        assert hub.repositories == {}

    def test_a_hub_that_fails_costs_the_upload_and_not_the_folder(
        self, hub: FakeHub, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.broken = True
        assert (
            main(["export", str(runs.run("none")), "--output", str(tmp_path / "out"), "--push", "small"]) == 1
        )
        said = capsys.readouterr().err
        assert "no room left" in said
        assert re.search(rf"hf upload {OWNER}/small .*/out", said)
        assert (tmp_path / "out" / "model.safetensors").is_file()
