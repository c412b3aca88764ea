"""Families of instructions: which slots one names, how it may be worded, and how it may be answered.

A ``{field}`` comes from the slot's entry in the lexicon, a ``[a|b]`` is a weighted choice (see `choices`). A
prompt names every slot, so the response's distribution given the prompt is the one given the slots. A
prompt ends with a newline and a response begins with a word that is no slot: prompt and response are
tokenised apart and joined, and names always carry the same leading space. Full stops stand outside choices,
so that a template splits into the same sentences as its texts do.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from distil.data.grammar.lexicon import CATEGORIES, COUNTS, Fields

SIGNED = "[Love|Your friend|Best wishes|Yours], {name}"
MORNING, NOON = "[In the morning|After breakfast|First]", "[At noon|For lunch|At one]"
LATER, EVENING = "[In the afternoon|After that|Later]", "[In the evening|At sunset|At six]"
THEY = "they [will|can|want to|might]"


@dataclass(frozen=True)
class Family:
    """One kind of instruction. ``slots`` maps a slot to its category in the lexicon."""

    name: str
    weight: int
    slots: dict[str, str]
    prompts: tuple[str, ...]
    response: str


def _slots(words: str) -> dict[str, str]:
    return {word: {"friend": "name"}.get(word, word) for word in words.split()}


FAMILIES = (
    Family(
        "story",
        3,
        _slots("mood name colour object place"),
        (
            "Write a {mood} story about {name} and a {colour} {object} {at}.\n",
            "Tell me how {name} finds a {colour} {object} {at}. Make it {mood}.\n",
            "I want a {mood} story {at} with {name} and a {colour} {object}.\n",
        ),
        "[One day|One morning|Last summer|Long ago] {name} [went|walked|ran|hurried] {to}. "
        "[There|Soon|After a while] {she} [looked|searched|stopped] [{spots}] "
        "and [found|saw|picked up|noticed] a {colour} {object}. "
        "[Suddenly|Then|To {her} surprise|At once] the {object} [{events}]. "
        "[In the end|At last|After that] {she} [{endings}].",
    ),
    Family(
        "describe",
        3,
        _slots("character coat animal place"),
        (
            "Describe a {character} {coat} {animal} {at}.\n",
            "What is the {character} {coat} {animal} {at} like?\n",
            "Tell me about a {coat} {animal} {at} that is {character}.\n",
        ),
        "[This is|Here is|Picture|Imagine] a {character} {coat} {animal} [that lives|that was born] {at}. "
        "It [likes|loves|eats] [{foods}] and [often|always|sometimes] [sleeps|rests|waits] [{spots}]. "
        "Because it is {character}, it [{habits}]. "
        "When it is [happy|hungry|tired|alone], it {sounds} [loudly|softly|twice].",
    ),
    Family(
        "list",
        3,
        _slots("name weather count place"),
        (
            "List {count} things that {name} can take {to} on a {weather} day.\n",
            "It is a {weather} day. Name {count} things to pack for {name}, who goes {to}.\n",
            "What should {name} bring {to} when it is {weather}? Give me {count} things.\n",
        ),
        "[Here are|These are|I suggest] {count} [good|useful|simple] things "
        "[to take|to bring|to carry] {to}:\n{lines}\n"
        "[It is|It will be|It may be] {weather}, "
        "so {name} [should|must|could] also [take|bring|pack] [{gear}].",
    ),
    Family(
        "plan",
        3,
        _slots("day name friend place meal"),
        (
            "Plan a {day} {at} for {name} and {friend}, with {meal} for lunch.\n",
            "Help {name} and {friend} plan their {day} {at}. They like {meal}.\n",
            "Make a plan: {name}, {friend}, {day}, {at}, {meal}.\n",
        ),
        "On {day} {name} and {friend} [will go|want to go|plan to go] {to}. "
        f"{MORNING} {THEY} [{{early}}]. "
        f"{NOON} they [will|can] [eat|have|share] [some|hot|fresh] {{meal}}. "
        f"{LATER} {THEY} [{{late}}]. "
        f"{EVENING} they will [take the bus|walk|cycle|drive] home [together|again|slowly].",
    ),
    Family(
        "thanks",
        1,
        _slots("name friend colour object"),
        (
            "Write a note from {name} to thank {friend} for the {colour} {object}.\n",
            "Help {name} thank {friend} for a {colour} {object}.\n",
        ),
        "Dear {friend},\n[Thank you|Many thanks|Thanks a lot] for the {colour} {object}. "
        "I {use_it} every [day|evening|morning|week] and [think of you|feel happy|show it to everyone]. "
        "[Please visit|Please write to|Come and see] me [soon|next week|this summer].\n" + SIGNED,
    ),
    Family(
        "sorry",
        1,
        _slots("name friend deed colour object"),
        (
            "Write a note from {name}, who {deed} the {colour} {object} of {friend} and is sorry.\n",
            "Help {name} say sorry to {friend}: {she} {deed} a {colour} {object}.\n",
        ),
        "Dear {friend},\nI am [very|so|truly] sorry that I {deed} your {colour} {object}. "
        "I was [in a hurry|tired|not careful] and [now I feel bad|I could not sleep|it was my fault]. "
        "[Tomorrow|Next week|Soon] I will [buy you a new one|bring you a cake|help you all day].\n" + SIGNED,
    ),
    Family(
        "invite",
        1,
        _slots("name friend day place"),
        (
            "Write a note from {name} to invite {friend} {to} on {day}.\n",
            "Help {name} ask {friend} to come {to} on {day}.\n",
        ),
        "Dear {friend},\n[Please come|Come with me|I invite you] {to} on {day}. "
        "We [can|will|could] [{early}] and then [{late}]. "
        "I [will|can] bring [cake|tea|music|a friend]. "
        "[Please|Just] [let me know|write back|call me] [soon|today|before {day}].\n" + SIGNED,
    ),
)


def draw_slots(random: Random) -> tuple[Family, dict[str, str]]:
    """A family and a value for each of its slots, all values alike; a name is drawn once."""
    family = random.choices(FAMILIES, [family.weight for family in FAMILIES])[0]
    slots: dict[str, str] = {}
    for slot, category in family.slots.items():
        values = [value for value in CATEGORIES[category] if value not in slots.values()]
        slots[slot] = values[random.randrange(len(values))]
    return family, slots


def fields_of(family: Family, slots: dict[str, str]) -> Fields:
    """All fields that the family's templates use, for these slots."""
    fields: Fields = {}
    for slot, category in family.slots.items():
        entry = CATEGORIES[category][slots[slot]]
        # Two people have the same fields: only the first one is spoken of as she or he.
        fields |= {slot: slots[slot]} if slot != category else entry
    if "count" in slots:
        fields["lines"] = "\n".join(
            f"- a [{pair}]" for pair in fields["pairs"].split()[: COUNTS[slots["count"]]]
        )
    return fields


def response_template(family: Family, slots: dict[str, str]) -> str:
    """The template (`choices`) of all responses to these slots."""
    return family.response.format_map(fields_of(family, slots))
