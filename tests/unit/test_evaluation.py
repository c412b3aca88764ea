"""Evaluation against naive float64 references that hold all logits."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distil.config.schema import EvalConfig
from distil.data.collate import collate
from distil.engine.evaluation import answer_rows, by_length, entropy_floor, evaluate_model, plan, score_rows
from distil.engine.forward import Forward, scored_and_targets
from distil.head import Dense
from distil.types import IGNORE_INDEX, InputError

EOS = 2
VOCAB = 64


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter: 60 of ASCII, and é; id 2 is EOS and padding alike."""
    letters = [chr(code) for code in range(ord("@"), ord("@") + VOCAB - 4)]
    specials = {"<unk>": 0, "<bos>": 1, "</s>": EOS}
    vocabulary = specials | {letter: i for i, letter in enumerate([*letters, "é"], start=3)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<bos>", eos_token="</s>", pad_token="</s>"
    )


def make_rows(tokenizer: PreTrainedTokenizerFast, count: int = 13, vocab: int = VOCAB) -> Dataset:
    """Rows of random lengths: 1 to 9 prompt ids, 1 to 12 response ids and, save one row, EOS."""
    chance = random.Random(7)
    rows = []
    for index in range(count):
        prompt = [chance.randrange(3, vocab) for _ in range(chance.randint(1, 9))]
        response = [chance.randrange(3, vocab) for _ in range(chance.randint(1, 12))]
        end = [] if index == 3 else [EOS]
        rows.append(
            {
                "input_ids": prompt + response + end,
                "labels": [IGNORE_INDEX] * len(prompt) + response + end,
                "prompt_ids": prompt,
                "prompt": tokenizer.decode(prompt),
                "response": tokenizer.decode(response),
            }
        )
    return Dataset.from_list(rows)


def naive(model: Any, teacher: Any, rows: Dataset, shared: int) -> dict[str, float]:
    """Row by row, without padding, in float64."""
    totals = {"tokens": 0, "nll": 0.0, "kl": 0.0, "agreement": 0}
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            ours = model(ids).logits[0].double()
            theirs = teacher(ids).logits[0].double()
        for t, label in enumerate(row["labels"]):
            if label == IGNORE_INDEX:
                continue
            totals["tokens"] += 1
            totals["nll"] -= ours[t - 1].log_softmax(-1)[label].item()
            p, q = (x[t - 1, :shared].softmax(-1) for x in (theirs, ours))
            totals["kl"] += (p * (p / q).log()).sum().item()
            totals["agreement"] += int(p.argmax() == q.argmax())
    return totals


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_totals_equal_the_naive_reference(family: str, batch_size: int, tokenizer, request) -> None:
    build = request.getfixturevalue(f"tiny_{family}")
    student, teacher = build(VOCAB, seed=1), build(VOCAB + 8, seed=2)
    rows = make_rows(tokenizer)
    expected = naive(student, teacher, rows, VOCAB)
    totals = score_rows(student, teacher, rows, EOS, batch_size, VOCAB, tokenizer=tokenizer)
    assert totals.tokens == expected["tokens"]
    assert totals.nll_sum == pytest.approx(expected["nll"], rel=1e-5)
    assert totals.kl_sum == pytest.approx(expected["kl"], rel=1e-4)
    assert totals.agreement_sum == expected["agreement"]
    assert totals.perplexity == pytest.approx(math.exp(expected["nll"] / expected["tokens"]), rel=1e-5)


def test_closing_eos_is_scored_though_it_pads(tokenizer, tiny_llama) -> None:
    rows = make_rows(tokenizer)
    tokens = sum(len(row["input_ids"]) - len(row["prompt_ids"]) for row in rows)
    assert score_rows(tiny_llama(VOCAB), None, rows, EOS, 4, VOCAB).tokens == tokens


def test_bits_per_byte_by_hand(tokenizer, tiny_llama) -> None:
    """``AéB``: three letters, four bytes; a row cut short scores the bytes it has left."""
    prompt, response = tokenizer.encode("AB"), tokenizer.encode("AéB")
    whole = {
        "input_ids": [*prompt, *response, EOS],
        "labels": [IGNORE_INDEX] * 2 + [*response, EOS],
    }
    cut = {
        "input_ids": [*prompt, *response[:2]],
        "labels": [IGNORE_INDEX] * 2 + response[:2],
    }
    totals = score_rows(tiny_llama(VOCAB), None, [whole, cut], EOS, 2, VOCAB, tokenizer=tokenizer)
    assert totals.bytes == 4 + 3
    assert totals.bits_per_byte == pytest.approx(totals.nll_sum / math.log(2) / 7)
    assert score_rows(tiny_llama(VOCAB), None, [whole], EOS, 2, VOCAB).bytes is None


def test_a_teacher_evaluated_against_itself(tokenizer, tiny_llama) -> None:
    teacher = tiny_llama(VOCAB)
    for twin in (teacher, tiny_llama(VOCAB)):
        totals = score_rows(teacher, twin, make_rows(tokenizer), EOS, 4, VOCAB)
        assert totals.kl_sum == 0.0
        assert totals.top1_agreement == 1.0


def test_a_teacher_may_have_spoken_before(tokenizer, tiny_llama) -> None:
    """By the numbers of the rows, which come longest first."""
    student, teacher, rows = tiny_llama(VOCAB, seed=1), tiny_llama(VOCAB, seed=2), make_rows(tokenizer)
    heard: list[int] = []

    def said(numbers: list[int]) -> Dense:
        heard.extend(numbers)
        batch = collate([rows[i] for i in numbers], EOS)
        return Forward(teacher)(
            batch["input_ids"], batch["attention_mask"], scored_and_targets(batch["labels"])[0]
        )

    stored, live = (score_rows(student, each, rows, EOS, 4, VOCAB) for each in (said, teacher))
    assert stored == live
    assert stored.kl_sum > 1
    lengths = [len(rows[i]["input_ids"]) for i in heard]
    assert lengths == sorted(map(len, rows["input_ids"]), reverse=True)
    assert by_length([3, 9, 1, 9]) == [1, 3, 0, 2]


def test_without_teacher_and_without_rows(tokenizer, tiny_llama) -> None:
    totals = score_rows(tiny_llama(VOCAB), None, make_rows(tokenizer), EOS, 4, VOCAB)
    assert totals.kl_sum is None
    assert totals.agreement_sum is None
    empty = score_rows(tiny_llama(VOCAB), None, [], EOS, 4, VOCAB)
    assert empty.nll_per_token is None


def test_half_precision_is_close(tokenizer, tiny_llama) -> None:
    rows = make_rows(tokenizer)
    whole = score_rows(tiny_llama(VOCAB), None, rows, EOS, 4, VOCAB)
    half = score_rows(tiny_llama(VOCAB).bfloat16(), None, rows, EOS, 4, VOCAB)
    assert half.nll_per_token == pytest.approx(whole.nll_per_token, rel=1e-3)


def random_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()


def test_nothing_is_disturbed(tokenizer, tiny_gpt2) -> None:
    student = tiny_gpt2(VOCAB, resid_pdrop=0.5).train()
    student.transformer.h[0].eval()
    teacher = tiny_gpt2(VOCAB, seed=3)
    modes = [module.training for module in student.modules()]
    before = random_states()
    config = EvalConfig(do_sample=True, max_new_tokens=4)
    rows = make_rows(tokenizer)
    evaluate_model(student, teacher, rows, tokenizer, config, 0, eos_ids=[EOS], shared_vocabulary=VOCAB)
    assert random_states() == before
    assert [module.training for module in student.modules()] == modes
    assert all(parameter.grad is None for parameter in student.parameters())


def test_dropout_is_off_while_evaluating(tokenizer, tiny_gpt2) -> None:
    rows = make_rows(tokenizer)
    noisy, quiet = tiny_gpt2(VOCAB, resid_pdrop=0.5).train(), tiny_gpt2(VOCAB)
    assert score_rows(noisy, None, rows, EOS, 4, VOCAB) == score_rows(quiet, None, rows, EOS, 4, VOCAB)


def test_evaluation_holds_every_planned_value_in_order(tokenizer, tiny_llama) -> None:
    rows = make_rows(tokenizer)
    seen: list[tuple[int, int]] = []
    config = EvalConfig(generation_rows=5, max_new_tokens=6, batch_size=4)
    evaluation = evaluate_model(
        tiny_llama(VOCAB),
        tiny_llama(VOCAB, seed=1),
        rows,
        tokenizer,
        config,
        0,
        eos_ids=[EOS],
        shared_vocabulary=VOCAB,
        progress=lambda done, total: seen.append((done, total)),
    )
    planned, notes = plan(config, rows, has_teacher=True)
    assert list(evaluation.scores) == [name for metric in planned for name in metric.values]
    assert None not in evaluation.scores.values()
    assert evaluation.notes == notes == []
    assert [answer.reference for answer in evaluation.generations] == rows["response"][:5]
    assert [answer.prompt for answer in evaluation.generations] == rows["prompt"][:5]
    assert evaluation.scored_tokens == sum(label != IGNORE_INDEX for row in rows for label in row["labels"])
    assert seen == [(done, 18) for done in (4, 8, 12, 13, 13 + 4, 18)]
    json.dumps(evaluation.scores, allow_nan=False)


def test_greedy_answers_equal_transformers_generate(tokenizer, tiny_llama) -> None:
    model, rows = tiny_llama(VOCAB, seed=5), make_rows(tokenizer, 6)
    answers = answer_rows(
        model, rows, tokenizer, EvalConfig(max_new_tokens=8, batch_size=4), 0, eos_ids=[EOS]
    )
    for row, answer in zip(rows, answers, strict=True):
        prompt = torch.tensor([row["prompt_ids"]])
        whole = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=EOS)[0]
        ids = whole[prompt.shape[1] :]
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.tokens == len(ids)
        assert answer.ended == (ids[-1].item() == EOS)


def test_sampled_answers_do_not_depend_on_the_batch(tokenizer, tiny_llama) -> None:
    model, rows = tiny_llama(VOCAB, seed=5), make_rows(tokenizer)

    def sample(batch_size: int, seed: int = 0) -> list[str]:
        config = EvalConfig(max_new_tokens=8, batch_size=batch_size, do_sample=True)
        return [answer.text for answer in answer_rows(model, rows, tokenizer, config, seed, eos_ids=[EOS])]

    assert sample(1) == sample(8)
    assert sample(8, seed=1) != sample(8)


def test_slots_reach_the_generations(tokenizer, tiny_llama) -> None:
    rows = make_rows(tokenizer, 2).add_column("slots", ['{"required": [["A"]]}', None])
    config = EvalConfig(max_new_tokens=2, batch_size=2)
    answers = answer_rows(tiny_llama(VOCAB), rows, tokenizer, config, 0, eos_ids=[EOS])
    assert [answer.slots for answer in answers] == [{"required": [["A"]]}, None]


def test_what_is_missing_is_said_before_anything_runs(tokenizer) -> None:
    rows = make_rows(tokenizer, 2)
    config = EvalConfig(metrics=["agreement", "rouge", "likelihood"], generation_rows=0)
    metrics, notes = plan(config, rows, has_teacher=False)
    assert [type(metric).__name__ for metric in metrics] == ["Likelihood"]
    assert len(notes) == 2
    with pytest.raises(InputError, match=r"eval\.metrics=nothing is unknown"):
        plan(EvalConfig(metrics=["nothing"]), rows, has_teacher=True)


def test_floor_is_the_entropy_of_the_source(tokenizer) -> None:
    rows = make_rows(tokenizer, 4)
    assert entropy_floor(rows) == {}
    nats = [1.0, 2.0, 3.0, 4.5]
    floor = entropy_floor(rows.add_column("log_probability", [-x for x in nats]))
    tokens = sum(len(row["input_ids"]) - len(row["prompt_ids"]) for row in rows)
    size = sum(len(text.encode()) for text in rows["response"])
    assert floor == {
        "nll": pytest.approx(10.5 / tokens),
        "perplexity": pytest.approx(math.exp(10.5 / tokens)),
        "bits_per_byte": pytest.approx(10.5 / math.log(2) / size),
    }


def test_no_floor_where_the_prompt_is_scored_too(tokenizer) -> None:
    row = make_rows(tokenizer, 1)[0] | {"log_probability": -1.0}
    row["labels"] = (
        [IGNORE_INDEX, *row["input_ids"][1:]] if len(row["prompt_ids"]) > 1 else list(row["input_ids"])
    )
    assert entropy_floor([row]) == {}
