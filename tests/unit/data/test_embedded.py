import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from random import Random

import pytest

from distil.data.embedded import SPLITS, generate_rows, split_of, true_entropy
from distil.data.grammar.choices import (
    entropy,
    is_prefix_free,
    log_probability,
    parts,
    probabilities,
    sample,
)
from distil.data.grammar.families import FAMILIES, Family, draw_slots, fields_of, response_template
from distil.data.grammar.lexicon import CATEGORIES

FAMILY = {family.name: family for family in FAMILIES}


def some_slots(family: Family, count: int) -> list[dict[str, str]]:
    random = Random(0)
    found: list[dict[str, str]] = []
    while len(found) < count:
        drawn, values = draw_slots(random)
        found += [values] if drawn is family else []
    return found


def test_rows_are_the_same_in_another_process():
    code = (
        "import json; from distil.data.embedded import generate_rows; "
        "print(json.dumps(generate_rows('test', 5, 1)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(other.stdout) == generate_rows("test", 5, 1)


def test_a_row_does_not_depend_on_the_count():
    assert generate_rows("train", 40, 3)[:7] == generate_rows("train", 7, 3)


def test_seeds_and_splits_give_other_rows():
    first = [row["prompt"] for row in generate_rows("train", 30, 0)]
    assert first != [row["prompt"] for row in generate_rows("train", 30, 1)]


def test_splits_share_no_instruction():
    prompts = {split: {row["prompt"] for row in generate_rows(split, 500, 0)} for split in SPLITS}
    for split in SPLITS:
        others = set().union(*(prompts[other] for other in SPLITS if other != split))
        assert not prompts[split] & others


def test_splits_have_their_shares():
    random = Random(0)
    drawn = Counter()
    for _ in range(5000):
        family, values = draw_slots(random)
        drawn[split_of(family.name, values)] += 1
    for split, share in SPLITS.items():
        expected = 5000 * share / sum(SPLITS.values())
        assert abs(drawn[split] - expected) < 5 * math.sqrt(expected)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split=dev is unknown"):
        generate_rows("dev", 1, 0)


@pytest.mark.parametrize("name", FAMILY)
def test_no_alternative_begins_another(name):
    """With this each text has one derivation: reading from the left, every choice is decided by the text."""
    for values in some_slots(FAMILY[name], 60):
        template = response_template(FAMILY[name], values)
        assert not set("[]{}") & set(re.sub(r"\[[^\[\]]*\]", "", template)), "choices do not nest"
        for alternatives in parts(template):
            assert is_prefix_free(alternatives), alternatives


def enumerate_texts(template: str) -> Iterator[str]:
    """Every derivation's text: the product of all choices, so mind the size."""
    return ("".join(pieces) for pieces in product(*parts(template)))


@pytest.mark.parametrize("name", ["thanks", "sorry"])
def test_probabilities_of_all_responses_sum_to_one(name):
    template = response_template(FAMILY[name], some_slots(FAMILY[name], 1)[0])
    texts = list(enumerate_texts(template))
    assert len(texts) == len(set(texts))
    logs = [log_probability(template, text) for text in texts]
    assert math.fsum(map(math.exp, logs)) == pytest.approx(1)
    assert -math.fsum(math.exp(value) * value for value in logs) == pytest.approx(entropy(template))


def test_samples_are_as_frequent_as_their_probability_says():
    random = Random(0)
    template = "It [likes|loves|eats] [hay|oats]."
    drawn = Counter(sample(template, random)[0] for _ in range(20_000))
    for text in enumerate_texts(template):
        expected = 20_000 * math.exp(log_probability(template, text))
        assert abs(drawn[text] - expected) < 5 * math.sqrt(expected)


def test_the_probability_of_a_row_is_that_of_its_text():
    random = Random(0)
    for _ in range(200):
        template = response_template(*draw_slots(random))
        text, drawn = sample(template, random)
        assert log_probability(template, text) == pytest.approx(drawn)
        assert log_probability(template, text + " ") == log_probability(template, text[1:]) == -math.inf


def test_true_entropy_is_the_mean_surprise_of_the_rows():
    rows = generate_rows("validation", 1000, 0)
    surprise = -sum(row["log_probability"] for row in rows) / len(rows)
    assert surprise == pytest.approx(true_entropy("validation", 1000, 0), rel=0.03)


def test_halving():
    assert probabilities(3) == [4 / 7, 2 / 7, 1 / 7]


@pytest.mark.parametrize("name", FAMILY)
def test_a_prompt_names_every_slot(name):
    """Else the response's distribution given the prompt is not the one that its probability counts."""
    for values in some_slots(FAMILY[name], 20):
        for prompt in FAMILY[name].prompts:
            text = prompt.format_map(fields_of(FAMILY[name], values))
            assert text.endswith("\n")
            words = set(re.findall(r"\w+", text))
            assert set(values.values()) <= words, text


@pytest.mark.parametrize("name", FAMILY)
def test_a_response_does_not_open_with_a_slot(name):
    assert not FAMILY[name].response.startswith("{")


def test_articles_fit():
    text = " ".join(row["prompt"] + row["response"] for row in generate_rows("pretrain", 500, 0))
    assert not re.search(r"\ba [aeiou]", text)
    assert not re.search(r"\ban (?!hour)[^aeiou]", text)


def test_names_are_one_token_wide():
    assert all(value.isalpha() for table in CATEGORIES.values() for value in table)
