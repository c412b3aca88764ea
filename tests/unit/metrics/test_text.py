"""ROUGE and BLEU against the libraries they stand on, in any script, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.metrics.bleu import compute_bleu
from distil.metrics.rouge import compute_rouge

PREDICTIONS = [
    "The cat sat on the mat",
    "Running dogs were barking loudly at 3 o'clock!",
    "",
    "snake_case words",
]
REFERENCES = [
    "A cat was sitting on a mat",
    "The dog runs and barks; it's 3.",
    "empty",
    "Snake case word",
]


def test_rouge_equals_rouge_score_on_ascii() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    expected = [scorer.score(r, p) for r, p in zip(REFERENCES, PREDICTIONS, strict=True)]
    for name, score in compute_rouge(PREDICTIONS, REFERENCES).items():
        assert score == pytest.approx(sum(row[name].fmeasure for row in expected) / len(expected), abs=1e-12)


ASCII_TEXT = st.text(st.characters(max_codepoint=127), max_size=40)
INFLECTED_WORDS = st.from_regex(r"[a-z]{3,12}(ing|ed|s|ly)", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(ASCII_TEXT | INFLECTED_WORDS)
def test_the_tokenizer_equals_the_default_one_on_ascii(text: str) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    from distil.metrics.modules.rouge.rouge import UnicodeTokenizer

    assert UnicodeTokenizer().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@pytest.mark.parametrize(
    "text",
    [
        "Привет, мир",
        "你好世界",
        "こんにちは、世界",
        "안녕 세상",
        "مرحبا بالعالم",
        "हिन्दी भाषा",
        "สวัสดีชาวโลก",
        "naïve café",
    ],
)
def test_rouge_of_a_text_with_itself_is_one_in_any_script(text: str) -> None:
    scores = compute_rouge([text], [text])
    assert scores == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


def test_scripts_without_spaces_are_compared_by_character() -> None:
    # Three of four characters are shared, in order.
    assert compute_rouge(["你好世界"], ["你好世人"])["rougeL"] == pytest.approx(0.75)


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    assert compute_rouge(["cafe\u0301"], ["caf\u00e9"])["rouge1"] == 1.0


def test_rouge_takes_the_best_reference() -> None:
    both = compute_rouge(["the cat sat"], [["dogs ran off", "the cat sat"]])
    assert both == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


def test_rouge_of_empty_predictions_is_zero() -> None:
    assert set(compute_rouge(["", " "], ["a b", "c d"]).values()) == {0.0}


def test_bleu_equals_sacrebleu() -> None:
    from sacrebleu.metrics.bleu import BLEU

    expected = BLEU().corpus_score(PREDICTIONS, [REFERENCES])
    score = compute_bleu(PREDICTIONS, [[reference] for reference in REFERENCES])
    assert score["bleu"] == pytest.approx(expected.score / 100)
    assert score["precisions"] == pytest.approx([p / 100 for p in expected.precisions])
    assert score["brevity_penalty"] == pytest.approx(expected.bp)
    assert score["length_ratio"] == pytest.approx(expected.sys_len / expected.ref_len)
    assert compute_bleu(PREDICTIONS, REFERENCES) == score


def test_bleu_takes_different_numbers_of_references() -> None:
    texts = ["a b c d e", "f g h i j"]
    assert compute_bleu(texts, [["x y", "a b c d e"], ["f g h i j"]])["bleu"] == pytest.approx(1.0)


def test_bleu_of_empty_predictions_is_zero() -> None:
    assert compute_bleu(["", ""], ["a b", "c d"])["bleu"] == 0.0


@pytest.mark.parametrize("compute", [compute_rouge, compute_bleu])
def test_what_does_not_pair_up_is_refused(compute) -> None:  # type: ignore[no-untyped-def]  # two signatures
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        compute(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no predictions"):
        compute([], [])
    with pytest.raises(ValueError, match=r"references\[0\] is empty"):
        compute(["a"], [[]])


def test_no_network_and_no_file_outside_the_cache(tmp_path: Path) -> None:
    """In a fresh process, hub not set offline: any socket is an error, and only the cache is written."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    code = (
        "import socket\n"
        "def refuse(*_args, **_kwargs):\n"
        "    raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from distil.metrics.rouge import compute_rouge\n"
        "from distil.metrics.bleu import compute_bleu\n"
        "assert compute_rouge(['a b'], ['a b'])['rougeL'] == 1\n"
        "assert compute_bleu(['a b c d'], ['a b c d'])['bleu'] > .99\n"
    )
    keep = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    root = str(Path(__file__).resolve().parents[3])
    environment = {**keep, "HOME": str(home), "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=work, env=environment)
    assert not list(work.iterdir())
    assert not list(home.rglob("*"))
