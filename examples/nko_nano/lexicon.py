"""Everyday Bambara for the nano base: words, and sentences made of them by a small grammar, in bridge-toneless N'Ko.

Words and grammar were written for this project. A sentence belongs for ever either to the base's pretraining or to the
data set `nko-nano`, by the hash of its letters; so no held-out sentence was ever shown to the base.
"""

import functools
import hashlib
import random

BRIDGE = dict(
    zip("abcdefghijklmnoprstuwyɔɛɲ", "ߊߓߗߘߍߝߜߤߌߖߞߟߡߣߋߔߙߛߕߎߥߦߏߐߢ", strict=True)  # the bridge's own vowels
)
SHORTEST, LONGEST = 8, 32
"""Code points of a sentence."""
KEPT_BACK = 0.1
"""Share of all sentences that the base never sees."""

PRONOUNS = ["n", "i", "a", "an", "aw", "u"]
NAMES = ["awa", "musa", "fanta", "amadu", "umu", "modibo", "sali", "bakari"]
KIN = ["fa", "ba", "den", "muso", "cɛ", "dɔgɔ", "kɔrɔ", "teri", "dunan"]
PEOPLE = ["muso", "cɛ", "den", "dugutigi", "karamɔgɔ", "cikɛla", "jagokɛla", "dunan", "denmuso"]
DEEDS = {
    "dun": "malo jɛgɛ sogo buru mangoro tiga",
    "min": "ji nɔnɔ dute",
    "san": "malo jɛgɛ sogo buru mangoro tiga nɔnɔ kɔgɔ fini gafe mobili negeso muru daga misi",
    "feere": "malo jɛgɛ mangoro tiga kaba nɔnɔ fini gafe mobili negeso misi",
    "ye": "mobili gafe misi wulu dugutigi karamɔgɔ dunan wari",
    "ta": "gafe wari muru daga fini lɛtɛrɛ",
    "tobi": "malo sogo jɛgɛ kaba tiga",
    "ko": "fini daga mobili den",
    "kalan": "gafe lɛtɛrɛ",
    "labɛn": "dute daga mobili negeso foro",
    "ɲini": "wari ji muru misi baara",
    "sɔrɔ": "wari baara gafe malo ji",
    "bila": "gafe daga kɔgɔ muru misi",
}
"""Verb -> what it is done to."""
MOVES = {
    "taa": "taara",
    "na": "nana",
    "bɔ": "bɔra",
    "segin": "seginna",
    "sigi": "sigira",
    "sunɔgɔ": "sunɔgɔra",
    "boli": "bolila",
    "kuma": "kumana",
    "yaala": "yaalala",
}
"""Verb without an object -> its past."""
PLACES = [
    "sugu la",
    "foro la",
    "lakɔli la",
    "misiri la",
    "dugu kɔnɔ",
    "so kɔnɔ",
    "kungo kɔnɔ",
    "sira kan",
    "bamakɔ",
    "segu",
    "sikaso",
    "kayi",
]
PAST, NOW, FUTURE = ["kunun", "bi", "sɔgɔma"], ["bi", "sisan"], ["sini", "sisan"]
TENSES = {"bɛ": NOW, "tɛ": NOW, "ye": PAST, "ma": PAST, "na": FUTURE}
"""What stands between subject and object -> when."""
QUALITIES = ["ɲi", "bon", "jan", "surun", "suma", "di", "gɛlɛn", "nɔgɔn", "ca", "girin"]
THINGS = sorted({thing for things in DEEDS.values() for thing in things.split()})


def nko(latin: str) -> str:
    """Latin Bambara in the bridge's letters."""
    return "".join(BRIDGE.get(letter, letter) for letter in latin)


@functools.cache
def words() -> tuple[str, ...]:
    """Every word that a sentence may hold, in N'Ko, sorted."""
    lists = [PRONOUNS, NAMES, KIN, PEOPLE, THINGS, [*DEEDS], [*MOVES], [*MOVES.values()], PAST, NOW, FUTURE, QUALITIES]
    found = {word for each in lists for word in each} | {word for place in PLACES for word in place.split()}
    found |= {f"{person}w" for person in PEOPLE} | {
        "bɛ",
        "tɛ",
        "ye",
        "ma",
        "na",
        "ka",
        "man",
        "nin",
        "in",
        "o",
        "fɛ",
        "mun",
        "jɔn",
        "min",
    }
    return tuple(sorted(map(nko, found)))


def sentence(draw: random.Random, for_base: bool) -> str:
    """A sentence in N'Ko. for_base: one of those that the base may see, else one of those kept back."""
    while True:
        text = nko(draw.choice((_deed, _deed, _deed, _move, _move, _state, _wish, _question))(draw))
        if SHORTEST <= len(text) <= LONGEST and is_for_base(text) == for_base:
            return text


def is_for_base(text: str) -> bool:
    """Whether the base may see a text; spaces and punctuation make no difference."""
    digest = hashlib.sha256(f"nko-nano:{normal(text)}".encode()).hexdigest()
    return int(digest[:13], 16) / 16**13 >= KEPT_BACK


def normal(text: str) -> str:
    """The letters of a text alone."""
    return "".join(filter(str.isalnum, text))


def _who(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.4:
        return draw.choice(PRONOUNS)
    if kind < 0.55:
        return draw.choice(NAMES)
    if kind < 0.8:
        return f"{draw.choice(PRONOUNS)} {draw.choice(KIN)}"
    return draw.choice(PEOPLE) + draw.choice(("", "w"))


def _maybe(draw: random.Random, choices: list[str], chance: float) -> str:
    return f" {draw.choice(choices)}" if draw.random() < chance else ""


def _deed(draw: random.Random) -> str:
    verb = draw.choice([*DEEDS])
    thing, tense = draw.choice(DEEDS[verb].split()), draw.choice([*TENSES])
    place = _maybe(draw, PLACES, 0.2)
    return f"{_who(draw)} {tense} {thing} {verb}{place}{_maybe(draw, TENSES[tense], 0.35)}"


def _move(draw: random.Random) -> str:
    verb, past = draw.choice([*MOVES.items()])
    place = _maybe(draw, PLACES, 0.8)
    if draw.random() < 0.4:
        return f"{_who(draw)} {past}{place}{_maybe(draw, PAST, 0.4)}"
    tense = draw.choice(("bɛ", "tɛ", "ma", "na"))
    return f"{_who(draw)} {tense} {verb}{place}{_maybe(draw, TENSES[tense], 0.3)}"


def _state(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.4:
        return f"{draw.choice(('nin ', ''))}{draw.choice(THINGS)} {draw.choice(('ka', 'man'))} {draw.choice(QUALITIES)}"
    if kind < 0.7:
        return f"{_who(draw)} {draw.choice(('bɛ', 'tɛ'))} {draw.choice(PLACES)}{_maybe(draw, NOW, 0.4)}"
    if kind < 0.85:
        return f"{draw.choice(NAMES)} ye {draw.choice(PEOPLE)} ye"
    return f"{draw.choice(('o', 'nin'))} ye {draw.choice(PRONOUNS)} {draw.choice(THINGS)} ye"


def _wish(draw: random.Random) -> str:
    verb = draw.choice([*DEEDS])
    return f"{_who(draw)} bɛ a fɛ ka {draw.choice(DEEDS[verb].split())} {verb}{_maybe(draw, PLACES, 0.15)}"


def _question(draw: random.Random) -> str:
    verb = draw.choice([*DEEDS])
    if draw.random() < 0.5:
        tense, thing = draw.choice(("bɛ", "ye", "ma")), draw.choice(DEEDS[verb].split())
        return f"jɔn {tense} {thing} {verb}{_maybe(draw, PLACES, 0.3)}"
    return f"{_who(draw)} {draw.choice(('bɛ', 'ye', 'na'))} mun {verb}{_maybe(draw, PLACES, 0.4)}"
