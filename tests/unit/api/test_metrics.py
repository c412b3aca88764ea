"""Metrics and utilities of the library against plain loops and independent implementations."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from datasets import Dataset
from rouge_score import rouge_scorer
from torch.utils.data import DataLoader
from transformers import AutoConfig, DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from llm_distil import ArgumentError
from llm_distil.metrics import MetricTracker, compute_bleu, compute_perplexity, compute_rouge
from llm_distil.utils import get_tokenizer, get_vocab_size
from tests.conftest import build_gpt2


def by_hand(model: PreTrainedModel, rows: Dataset) -> float:
    """Perplexity of the real tokens of each row, one row at a time, summed before the one exponential."""
    nll, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"][: sum(row["attention_mask"])]])
            log_BTV = model(ids).logits[:, :-1].double().log_softmax(-1)
            nll -= float(log_BTV.gather(-1, ids[:, 1:, None]).sum())
            tokens += ids.shape[1] - 1
    return math.exp(nll / tokens)


def loader(rows: Dataset, tokenizer: PreTrainedTokenizerBase, columns: list[str]) -> DataLoader[Any]:
    """Batches of 3, padded by transformers' own collator."""
    unpadded = [
        {"input_ids": row["input_ids"][: sum(row["attention_mask"])]} for row in rows.select_columns(
            ["input_ids", "attention_mask"])
    ]  # fmt: skip
    collate = DataCollatorWithPadding(tokenizer)
    return DataLoader(
        unpadded,  # type: ignore[arg-type]  # a list will do
        batch_size=3,
        collate_fn=lambda batch: {k: v for k, v in collate(batch).items() if k in columns},
    )


def test_perplexity_of_every_form_is_that_of_a_loop(
    student: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    expected = pytest.approx(by_hand(student, rows), rel=1e-5)
    tokens = rows.select_columns(["input_ids", "attention_mask"])
    assert compute_perplexity(student, tokens, tokenizer) == expected
    assert compute_perplexity(student, tokens, tokenizer, device="cpu", batch_size=5) == expected
    for columns in (["input_ids", "attention_mask"], ["input_ids"]):  # without a mask: pad = EOS at the end
        assert compute_perplexity(student, loader(rows, tokenizer, columns), tokenizer) == expected
    assert compute_perplexity(student, tokens.to_iterable_dataset(), tokenizer) == expected
    assert compute_perplexity(student, rows.select_columns(["input_ids"]), tokenizer) == expected


def test_perplexity_obeys_labels_and_reads_text(
    student: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = rows[0]["input_ids"][:12]
    first, second = ([-100] * 6 + ids[6:], ids[:6] + [-100] * 6)
    values = [
        compute_perplexity(student, [{"input_ids": ids, "labels": labels}], tokenizer)
        for labels in (first, second, ids)
    ]
    nats = [math.log(value) for value in values]
    assert nats[0] * 6 + nats[1] * 5 == pytest.approx(nats[2] * 11, rel=1e-5)
    text = rows.select_columns(["text"])
    assert 1 < compute_perplexity(student, text, tokenizer) < 100


def test_perplexity_leaves_mode_and_chance_alone(
    student: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    student.train()
    before = torch.get_rng_state()
    compute_perplexity(student, rows, tokenizer)
    assert student.training
    assert torch.equal(torch.get_rng_state(), before)


def test_perplexity_refuses_what_it_cannot_do(
    student: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='device="cuda" cannot be used here'):
            compute_perplexity(student, rows, tokenizer, device="cuda")
    with pytest.raises(ValueError, match="is the name 'gpt2'"):
        compute_perplexity("gpt2", rows, tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"give AutoTokenizer\.from_pretrained"):
        compute_perplexity(student, rows, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dataset is empty"):
        compute_perplexity(student, [], tokenizer)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        compute_perplexity(student, rows, tokenizer, batch_size=0)
    short = build_gpt2(1024, n_positions=8)
    with pytest.raises(ValueError, match="Give max_length=8"):
        compute_perplexity(short, rows, tokenizer)
    cut = [{"input_ids": row["input_ids"][:8]} for row in rows]
    assert compute_perplexity(short, rows, tokenizer, max_length=8) == pytest.approx(
        compute_perplexity(short, cut, tokenizer)
    )


def test_rouge_and_bleu_are_those_of_their_libraries() -> None:
    prediction, reference = "The cat sat on the mat", "A cat was sitting on a mat"
    kinds = ("rouge1", "rouge2", "rougeL")
    theirs = rouge_scorer.RougeScorer(kinds, use_stemmer=True).score(reference, prediction)
    ours = compute_rouge(predictions=[prediction], references=[reference])
    assert ours == {kind: pytest.approx(theirs[kind].fmeasure) for kind in kinds}
    assert compute_rouge([prediction], [reference]) == ours
    bleu = compute_bleu(predictions=[prediction], references=[[reference, "The cat sat on a mat"]])
    expected = sacrebleu.corpus_bleu([prediction], [[reference], ["The cat sat on a mat"]])
    assert bleu["bleu"] == pytest.approx(expected.score / 100)
    assert bleu["precisions"] == pytest.approx([p / 100 for p in expected.precisions])
    assert (bleu["brevity_penalty"], bleu["length_ratio"]) == (
        expected.bp,
        expected.sys_len / expected.ref_len,
    )


def test_texts_that_are_no_lists_are_refused() -> None:
    """Python would take them for lists of letters; and no score is above 1."""
    text: Any = "a b"
    for function in (compute_rouge, compute_bleu):
        with pytest.raises(ValueError, match=r"predictions is one text: give a list"):
            function(text, ["a b"])
        with pytest.raises(ValueError, match=r"references is one text: give a list"):
            function(["a", "b", " "], text)
        nothing: Any = None
        for predictions, references, said in (
            (nothing, ["a"], "predictions is a NoneType: give a list of texts"),
            (["a", nothing], ["a", "b"], r"predictions\[1\] is a NoneType: give a text"),
            ([["a"]], ["a"], r"predictions\[0\] is a list: give a text"),
            (["a"], [nothing], r"references\[0\]=None: give a text, or a list of texts"),
            (["a"], [[3]], r"references\[0\]=\[3\]: give a text"),
        ):
            with pytest.raises(ValueError, match=said):
                function(predictions, references)
    assert compute_bleu(["a b c d e"], ["a b c d e"])["bleu"] == 1


def test_columns_of_a_data_set_are_lists_of_texts() -> None:
    texts = Dataset.from_dict({"said": ["a b c d e", "f g"], "meant": ["a b x d e", "f g h"]})
    said, meant = texts["said"], texts["meant"]
    assert compute_rouge(said, meant) == compute_rouge(list(said), list(meant))
    assert compute_bleu(said, meant) == compute_bleu(list(said), list(meant))


NAMED = """
import sys, time
from llm_distil import ArgumentError, get_tokenizer, get_vocab_size
import transformers.models.auto
for function in (get_tokenizer, get_vocab_size):
    start = time.monotonic()
    try:
        function("org/model")
    except ArgumentError as error:
        print(error)
    assert time.monotonic() - start < 8, time.monotonic() - start
"""


def names_at(hub: str, home: Path) -> str:
    """What the two functions say of a model that is not here, in a fresh process, with ``hub`` as the hub."""
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HOME": str(home), "no_proxy": "*"}
    result = subprocess.run(
        [sys.executable, "-c", NAMED],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_names_of_a_hub_that_is_silent_fail_soon(tmp_path: Path) -> None:
    said = names_at("http://127.0.0.1:9", tmp_path)
    words = (
        "model_name=org/model is no local folder and not in the local cache, and the hub cannot be reached"
    )
    assert said.count(words) == 2
    assert said.count("HF_HUB_OFFLINE=1") == said.count("Give a local folder") == 2


def test_names_of_a_hub_that_answers_are_left_to_its_library(tmp_path: Path) -> None:
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.path, self.headers["User-Agent"]))
            self.send_error(404)

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = names_at(f"http://127.0.0.1:{server.server_port}", tmp_path)
        server.shutdown()
    assert said.count("cannot be loaded") == 2
    assert any("hf_hub" in agent for _, agent in asked), asked


def test_calls_that_do_not_fit_name_the_nearest(student: PreTrainedModel, rows: Dataset) -> None:
    wrong: Any = compute_perplexity
    with pytest.raises(ArgumentError, match="compute_perplexity lacks tokenizer"):
        wrong(student, rows)
    with pytest.raises(ArgumentError, match=r"takes no 'max_len'\. Did you mean max_length\?"):
        wrong(student, rows, None, max_len=3)
    nameless: Any = student
    with pytest.raises(ArgumentError, match=f"model_name is a {type(student).__name__}: give a path"):
        get_vocab_size(nameless)
    with pytest.raises(ArgumentError, match="value='a' of loss is no number"):
        MetricTracker().update("loss", "a")  # type: ignore[arg-type]
    for name, value, said in (
        ("loss", "3", "is no number"),
        ("loss", True, "is no number"),
        (3, 1, "give a text"),
    ):
        with pytest.raises(ArgumentError, match=said):
            MetricTracker().update(name, value)  # type: ignore[arg-type]


def test_a_tracker_gives_means_by_name() -> None:
    tracker = MetricTracker()
    for value in (2.5, torch.tensor(2.3), 3):
        tracker.update("train_loss", value)
    tracker.update("accuracy", 1)
    assert tracker.get_average("train_loss") == pytest.approx(2.6)
    assert tracker.get_all_metrics() == {"train_loss": pytest.approx(2.6), "accuracy": 1.0}
    with pytest.raises(ValueError, match=r"trainloss is unknown\. Did you mean train_loss"):
        tracker.get_average("trainloss")
    tracker.reset()
    assert tracker.get_all_metrics() == {}


def test_a_tokenizer_has_a_pad_token_and_a_size_needs_no_weights(hub: Path, tmp_path: Path) -> None:
    tokenizer = get_tokenizer(hub / "gpt2")
    assert tokenizer.pad_token is not None
    AutoConfig.from_pretrained(hub / "gpt2").save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
    assert get_vocab_size(str(tmp_path)) == AutoConfig.from_pretrained(hub / "gpt2").vocab_size
    bare = tmp_path / "bare"
    tokenizer.pad_token = None
    tokenizer.save_pretrained(bare)
    AutoConfig.from_pretrained(hub / "gpt2").save_pretrained(bare)
    assert get_tokenizer(bare).pad_token == tokenizer.eos_token


@pytest.mark.parametrize("function", [get_tokenizer, get_vocab_size])
def test_names_that_nobody_knows_are_named(function: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^model_name=no/such-model .*Give a local folder") as caught:
        function("no/such-model", allow_network=False)
    assert "not in the local cache, and allow_network=False. " in str(caught.value)
    assert "internet" not in str(caught.value)
    with pytest.raises(ValueError, match="model_name="):
        function(tmp_path / "absent" / "folder")
