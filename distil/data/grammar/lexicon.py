"""The words of the grammar: for each category a table from a value to the fields that templates may use.

A field is a text or the alternatives of a choice ("a|b"). ``said`` lists the words by which a text shows
that it means the value, where that is not the value itself. Words are few and short: most are one token of
the tokenizer.
"""

from __future__ import annotations

Fields = dict[str, str]

_GIRLS = "Anna Clara Ella Grace Ida Lucy Maya Nora Rosa Zoe"
_BOYS = "Ben David Felix Hugo Jack Leo Max Omar Paul Tom"

# noun: preposition; places to look; what to do early and late in the day; four pairs of things to take.
_PLACES = {
    "beach": (
        "at",
        "under the pier|near the rocks|beside a boat|behind a dune",
        ("swim in the sea|collect shells", "play in the sand|look for crabs"),
        "towel|ball bucket|spade blanket|mat flask|sandwich",
    ),
    "forest": (
        "in",
        "under an oak|beside a stream|behind a log|near the path",
        ("watch the birds|pick berries", "climb a tree|follow a stream"),
        "map|compass rope|knife torch|tent flask|sandwich",
    ),
    "farm": (
        "on",
        "behind the barn|near the gate|beside the pond|under a cart",
        ("feed the pigs|milk the cows", "ride a pony|brush the sheep"),
        "basket|bucket brush|rope towel|blanket flask|sandwich",
    ),
    "harbour": (
        "at",
        "near the ships|under a net|behind a barrel|beside the crane",
        ("watch the ships|count the boats", "catch fish|talk to a sailor"),
        "net|rod bucket|rope camera|map flask|sandwich",
    ),
    "park": (
        "in",
        "under a bench|near the swings|behind a hedge|beside the pond",
        ("ride a bike|feed the swans", "play a game|rest on a bench"),
        "ball|kite blanket|mat camera|notebook snack|flask",
    ),
    "market": (
        "at",
        "behind a stall|under a table|beside a basket|near the bread",
        ("taste the cheese|buy fresh fruit", "smell the flowers|listen to a band"),
        "basket|bag purse|list notebook|pencil snack|flask",
    ),
    "garden": (
        "in",
        "behind the shed|among the roses|near the gate|under a tree",
        ("water the roses|plant beans", "pick apples|rest in the shade"),
        "spade|bucket basket|rope mat|towel snack|sandwich",
    ),
    "lake": (
        "at",
        "near the reeds|beside a boat|under the bridge|behind a rock",
        ("row a boat|catch fish", "watch the swans|swim to the bridge"),
        "towel|mat net|rod rope|tent flask|sandwich",
    ),
    "castle": (
        "at",
        "behind the throne|under the stairs|beside the well|near the tower",
        ("climb the tower|walk on the wall", "see the throne|look for ghosts"),
        "torch|map camera|notebook ticket|purse snack|flask",
    ),
    "museum": (
        "at",
        "behind a statue|near the door|under the stairs|beside a painting",
        ("draw a statue|see the bones", "visit the shop|look at the paintings"),
        "notebook|pencil ticket|purse camera|map snack|flask",
    ),
    "island": (
        "on",
        "near the cave|under a palm|behind a rock|beside the cliff",
        ("explore the cave|climb the cliff", "look for gold|watch the seals"),
        "tent|blanket compass|map knife|rope flask|sandwich",
    ),
    "station": (
        "at",
        "under the roof|near the trains|behind a bag|beside the tracks",
        ("watch the trains|buy a ticket", "talk to the driver|count the bags"),
        "ticket|purse bag|basket camera|notebook snack|sandwich",
    ),
}

# noun: what it does in a story; how its owner uses it.
_OBJECTS = {
    "kite": ("flew above the trees|sailed in the wind|fell from the sky", "fly it"),
    "ring": ("shone like a star|rolled away|turned to gold", "wear it"),
    "lamp": ("glowed in the dark|went out|lit the whole place", "light it"),
    "key": ("opened a secret door|fitted an old lock|felt very heavy", "carry it"),
    "book": ("told a strange tale|opened by itself|smelled of dust", "read it"),
    "drum": ("made a loud noise|rolled away|began to play", "play it"),
    "clock": ("struck thirteen|ran backwards|stopped", "wind it"),
    "bell": ("made a clear sound|woke the birds|fell silent", "hear it"),
    "cup": ("filled with tea|broke in two|began to shine", "drink from it"),
    "box": ("opened by itself|began to shake|grew very large", "open it"),
    "flute": ("played a slow tune|sounded like a bird|broke in two", "play it"),
    "mirror": ("showed a strange face|turned dark|began to speak", "look into it"),
}

# noun: what it eats; the sound it makes.
_ANIMALS = {
    "dog": ("meat|bones|bread", "barks"),
    "cat": ("fish|milk|meat", "purrs"),
    "horse": ("hay|apples|oats", "neighs"),
    "rabbit": ("carrots|grass|leaves", "squeaks"),
    "duck": ("bread|seeds|worms", "quacks"),
    "goat": ("grass|leaves|hay", "bleats"),
    "mouse": ("cheese|seeds|corn", "squeaks"),
    "fox": ("eggs|berries|meat", "howls"),
    "hen": ("corn|seeds|worms", "clucks"),
    "parrot": ("nuts|fruit|seeds", "whistles"),
}

_CHARACTERS = {
    "shy": "hides from strangers|stays in the dark|runs from every noise",
    "brave": "walks alone at night|never runs away|guards the others",
    "lazy": "gets up at noon|hardly moves all day|yawns at everyone",
    "clever": "learns new tricks|opens every door|remembers each face",
    "gentle": "never bites anyone|sits with lonely people|plays with children",
    "greedy": "eats all day|steals from every table|begs at each meal",
}

# mood of a story: how it ends, and the verb that shows it.
_MOODS = {
    "happy": ("smiled all the way home|danced with joy|sang a song", "smiled|danced|sang"),
    "sad": ("cried all the way home|sighed and went to bed|wept for an hour", "cried|sighed|wept"),
    "funny": ("laughed all the way home|giggled until it hurt|joked all evening", "laughed|giggled|joked"),
    "scary": ("screamed and ran home|trembled with fear|shivered all night", "screamed|trembled|shivered"),
}

_WEATHERS = {
    "rainy": ("an umbrella|a raincoat", "umbrella|raincoat"),
    "cold": ("a scarf|a coat", "scarf|coat"),
    "sunny": ("a hat|a cap", "hat|cap"),
    "windy": ("a jacket|a jumper", "jacket|jumper"),
}

COUNTS = {"two": 2, "three": 3, "four": 4}


def _plain(category: str, values: str) -> dict[str, Fields]:
    return {value: {category: value} for value in values.split()}


def _person(name: str, girl: bool) -> Fields:
    she, her, other = ("she", "her", "he|his|him") if girl else ("he", "his", "she|her")
    return {"name": name, "she": she, "her": her, "other_pronouns": other}


CATEGORIES: dict[str, dict[str, Fields]] = {
    "name": {
        name: _person(name, girl)
        for names, girl in ((_GIRLS, True), (_BOYS, False))
        for name in names.split()
    },
    "place": {
        place: {
            "place": place,
            "at": f"{preposition} the {place}",
            "to": f"to the {place}",
            "spots": spots,
            "early": early,
            "late": late,
            "pairs": pairs,
        }
        for place, (preposition, spots, (early, late), pairs) in _PLACES.items()
    },
    "object": {
        noun: {"object": noun, "events": events, "use_it": use} for noun, (events, use) in _OBJECTS.items()
    },
    "animal": {
        noun: {"animal": noun, "foods": foods, "sounds": sound} for noun, (foods, sound) in _ANIMALS.items()
    },
    "character": {value: {"character": value, "habits": habits} for value, habits in _CHARACTERS.items()},
    "mood": {value: {"mood": value, "endings": ends, "said": said} for value, (ends, said) in _MOODS.items()},
    "weather": {
        value: {"weather": value, "gear": gear, "said": said} for value, (gear, said) in _WEATHERS.items()
    },
    "count": _plain("count", " ".join(COUNTS)),
    "colour": _plain("colour", "red blue green yellow silver purple"),
    "coat": _plain("coat", "black white brown grey golden"),
    "day": _plain("day", "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "meal": _plain("meal", "soup pasta pizza salad rice stew pie pancakes"),
    "deed": _plain("deed", "lost dropped forgot sold"),
}
