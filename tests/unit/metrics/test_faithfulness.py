import json
from itertools import pairwise

import pytest

from distil.data.embedded import generate_rows
from distil.metrics.faithfulness import faithfulness, fluency

ROWS = generate_rows("validation", 400, 0)
SLOTS = {
    "required": [["Anna"], ["cried", "wept"]],
    "forbidden": ["Ben", "smiled"],
    "items": ["towel", "spade", "map"],
    "count": 2,
    "sentences": ["* [saw|took] a [map|towel].", "- a [towel|spade|map]", "She [cried|wept]."],
}


def test_every_reference_is_faithful_and_fluent():
    for row in ROWS:
        assert faithfulness(row["response"], row["slots"]) == 1, row
        assert fluency(row["response"], row["slots"]) == 1, row


def test_slots_are_small_json():
    assert all(row["slots"] == json.loads(json.dumps(row["slots"])) for row in ROWS)
    assert max(len(json.dumps(row["slots"])) for row in ROWS) < 2000
    assert len({tuple(row["slots"]) for row in ROWS}) == 1, "one schema for all rows"


def test_an_empty_text_scores_nothing():
    for row in ROWS[:20]:
        assert faithfulness("", row["slots"]) == fluency(" \n", row["slots"]) == 0


def test_another_value_of_a_slot_is_missed_and_contradicts():
    for row in ROWS:
        slots = row["slots"]
        named = next(
            word for alternatives in slots["required"] for word in alternatives if word in row["response"]
        )
        other = next(word for word in slots["forbidden"] if word[0].isupper() == named[0].isupper())
        swapped = row["response"].replace(named, other)
        named_slots = len(slots["required"]) + bool(slots["count"])
        assert faithfulness(swapped, slots) <= 1 - 2 / named_slots + 1e-9


def test_the_response_of_another_row_scores_less():
    for row, other in pairwise(ROWS):
        if row["slots"]["required"] != other["slots"]["required"]:
            assert faithfulness(other["response"], row["slots"]) < 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Anna wept. A towel, a map.", 1),
        ("ANNA cried: towel, map", 1),
        ("Anna wept.", 2 / 3),
        ("Anna wept: towel, map, spade", 2 / 3),
        ("Anna wept: towel, towel and map", 2 / 3),
        ("Anna and Ben wept: towel, map", 2 / 3),
        ("Annabel swept the towels", 0),
        ("Ben smiled", 0),
    ],
)
def test_counting(text, score):
    assert faithfulness(text, SLOTS) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Anna saw a map. She wept.", 1),
        ("Ben saw a map.\n- a spade", 1),
        ("Zed saw a map. She wept.", 1 / 2),
        ("She wept. She wept. She wept.", 1 / 3),
        ("She wept. Anna saw a", 1 / 2),
        ("She weptt.", 0),
    ],
)
def test_sentences(text, score):
    assert fluency(text, SLOTS) == pytest.approx(score)


def test_a_wrong_name_is_fluent_and_an_invented_word_is_not():
    row = next(row for row in ROWS if row["slots"]["family"] == "story")
    name = row["slots"]["required"][1][0]
    other = next(word for word in row["slots"]["forbidden"] if word[0].isupper())
    assert fluency(row["response"].replace(name, other), row["slots"]) == 1
    assert fluency(row["response"].replace(name, name + "ly"), row["slots"]) < 1
