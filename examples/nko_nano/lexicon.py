"""Vocabulary and grammar of the nko-nano example: random everyday Bambara sentences in bridge-toneless N'Ko.

Both were written for this project. The hash of a sentence's letters assigns it either to the pretraining of the base
model or to the data set `nko-nano`, so the base never sees a sentence of the data set.
"""

import functools
import hashlib
import random

BRIDGE = dict(zip("abcdefghijklmnoprstuwyɔɛɲ", "ߊߓߗߘߍߝߜߤߌߖߞߟߡߣߋߔߙߛߕߎߥߦߏߐߢ", strict=True))
"""Latin letter -> N'Ko letter of the `bridge-toneless` orthography; four vowels differ from standard N'Ko."""
SHORTEST, LONGEST = 8, 32
"""Allowed length of a sentence, in code points."""
HELD_OUT = 0.1
"""Share of all sentences that is kept for the data set."""

PRONOUNS = ["n", "i", "a", "an", "aw", "u"]
NAMES = ["awa", "musa", "fanta", "amadu", "umu", "modibo", "sali", "bakari"]
KIN = ["fa", "ba", "den", "muso", "cɛ", "dɔgɔ", "kɔrɔ", "teri", "dunan"]
PEOPLE = ["muso", "cɛ", "den", "dugutigi", "karamɔgɔ", "cikɛla", "jagokɛla", "dunan", "denmuso"]
TRANSITIVE = {
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
"""Transitive verb -> its possible objects."""
INTRANSITIVE = {
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
"""Intransitive verb -> its past form."""
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
"""Auxiliary between subject and object -> matching adverbs of time."""
QUALITIES = ["ɲi", "bon", "jan", "surun", "suma", "di", "gɛlɛn", "nɔgɔn", "ca", "girin"]
FUNCTION_WORDS = ["bɛ", "tɛ", "ye", "ma", "na", "ka", "man", "nin", "in", "o", "fɛ", "mun", "jɔn", "min"]
THINGS = sorted({thing for things in TRANSITIVE.values() for thing in things.split()})


def nko(latin: str) -> str:
    """Bambara in Latin letters, transliterated to bridge-toneless N'Ko."""
    return "".join(BRIDGE.get(letter, letter) for letter in latin)


@functools.cache
def words() -> tuple[str, ...]:
    """All words that a sentence can contain, in N'Ko, sorted."""
    lists = [PRONOUNS, NAMES, KIN, PEOPLE, THINGS, [*TRANSITIVE], [*INTRANSITIVE], [*INTRANSITIVE.values()]]
    lists += [PAST, NOW, FUTURE, QUALITIES, FUNCTION_WORDS]
    vocabulary = {word for each in lists for word in each} | {word for place in PLACES for word in place.split()}
    vocabulary |= {f"{person}w" for person in PEOPLE}  # plurals
    return tuple(sorted(map(nko, vocabulary)))


def sentence(rng: random.Random, for_base: bool) -> str:
    """A random sentence in N'Ko. for_base: from the base's share of all sentences, else from the held-out share."""
    while True:
        text = nko(rng.choice(SENTENCES)(rng))
        if SHORTEST <= len(text) <= LONGEST and is_for_base(text) == for_base:
            return text


def is_for_base(text: str) -> bool:
    """Whether the base may see a text; spaces and punctuation do not change the answer."""
    digest = hashlib.sha256(f"nko-nano:{normal(text)}".encode()).hexdigest()
    return int(digest[:13], 16) / 16**13 >= HELD_OUT  # 13 hex digits: exact in a float


def normal(text: str) -> str:
    """The letters and digits of a text, without spaces and punctuation."""
    return "".join(filter(str.isalnum, text))


def _subject(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(PRONOUNS)
    if kind < 0.55:
        return rng.choice(NAMES)
    if kind < 0.8:
        return f"{rng.choice(PRONOUNS)} {rng.choice(KIN)}"
    return rng.choice(PEOPLE) + rng.choice(("", "w"))


def _optional(rng: random.Random, choices: list[str], chance: float) -> str:
    return f" {rng.choice(choices)}" if rng.random() < chance else ""


def _transitive(rng: random.Random) -> str:
    verb = rng.choice([*TRANSITIVE])
    thing, tense = rng.choice(TRANSITIVE[verb].split()), rng.choice([*TENSES])
    place = _optional(rng, PLACES, 0.2)
    return f"{_subject(rng)} {tense} {thing} {verb}{place}{_optional(rng, TENSES[tense], 0.35)}"


def _intransitive(rng: random.Random) -> str:
    verb, past = rng.choice([*INTRANSITIVE.items()])
    place = _optional(rng, PLACES, 0.8)
    if rng.random() < 0.4:
        return f"{_subject(rng)} {past}{place}{_optional(rng, PAST, 0.4)}"
    tense = rng.choice(("bɛ", "tɛ", "ma", "na"))
    return f"{_subject(rng)} {tense} {verb}{place}{_optional(rng, TENSES[tense], 0.3)}"


def _stative(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return f"{rng.choice(('nin ', ''))}{rng.choice(THINGS)} {rng.choice(('ka', 'man'))} {rng.choice(QUALITIES)}"
    if kind < 0.7:
        return f"{_subject(rng)} {rng.choice(('bɛ', 'tɛ'))} {rng.choice(PLACES)}{_optional(rng, NOW, 0.4)}"
    if kind < 0.85:
        return f"{rng.choice(NAMES)} ye {rng.choice(PEOPLE)} ye"
    return f"{rng.choice(('o', 'nin'))} ye {rng.choice(PRONOUNS)} {rng.choice(THINGS)} ye"


def _wish(rng: random.Random) -> str:
    verb = rng.choice([*TRANSITIVE])
    return f"{_subject(rng)} bɛ a fɛ ka {rng.choice(TRANSITIVE[verb].split())} {verb}{_optional(rng, PLACES, 0.15)}"


def _question(rng: random.Random) -> str:
    verb = rng.choice([*TRANSITIVE])
    if rng.random() < 0.5:
        tense, thing = rng.choice(("bɛ", "ye", "ma")), rng.choice(TRANSITIVE[verb].split())
        return f"jɔn {tense} {thing} {verb}{_optional(rng, PLACES, 0.3)}"
    return f"{_subject(rng)} {rng.choice(('bɛ', 'ye', 'na'))} mun {verb}{_optional(rng, PLACES, 0.4)}"


SENTENCES = (_transitive, _transitive, _transitive, _intransitive, _intransitive, _stative, _wish, _question)
"""Kinds of sentences; a frequent kind is listed more than once."""
