"""The words that the two rules over captions know: which open a context, which describe the subject, which say nothing.

Lists, not a grammar: captioners write short sentences of one make. A word that is missing costs a context, no run.
"""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _set("a an the this that these those some one two three four several many another")
POSSESSIVES = _set("its their his her my your our")
PRONOUNS = _set("it them him itself themselves each other someone something")
COPULAS = _set("is are was were has been being be")
POINTERS = _set("there this that it these here")

PLACES = _set(
    "on in at near by beside besides behind under underneath beneath below above over across along alongside "
    "among amongst amid amidst against inside outside onto into through throughout around between atop upon "
    "toward towards past outdoors indoors next close out up down from off within aboard"
)
"""Words that begin a place."""
PAIRED = _set("next close out up down from off")
"""Of these, the ones that need another behind them (`next to`, `out on`): alone they are a verb's or an adjective's."""
PLACES_SECOND = PLACES | frozenset(("to", "of"))
ALONE = _set("outdoors indoors outside inside upstairs")
"""Places that need nothing behind them."""
WITH = frozenset(("with",))
SURROUNDINGS = _set("background foreground distance behind sky horizon")
"""How a caption ends whose `with ...` speaks of the surroundings."""

ATTRIBUTES = _set("wearing holding having featuring showing carrying containing including facing")
"""Doings that describe the subject itself."""
STATES = _set(
    "parked perched seated surrounded displayed docked tied stuck mounted placed anchored stopped grounded "
    "covered asleep stretched curled snuggled nestled tucked silhouetted illuminated lit reflected planted"
)
"""Past participles and the like that say how or where the subject is."""
FINITE = {
    "sits": "sitting", "stands": "standing", "flies": "flying", "lies": "lying", "lays": "lying", "rests": "resting",
    "swims": "swimming", "walks": "walking", "runs": "running", "perches": "perching", "hangs": "hanging",
    "sleeps": "sleeping", "drives": "driving", "grows": "growing", "eats": "eating", "drinks": "drinking",
    "floats": "floating", "plays": "playing", "soars": "soaring", "looks": "looking", "taxis": "taxiing",
}  # fmt: skip
"""A verb as a sentence has it -> as a suffix of a prompt wants it."""
_NO_DOING = _set(
    "wing king ring string spring thing evening morning ceiling building clothing railing painting lightning "
    "wedding awning bling sling swing fling sting sibling duckling seedling starling dwelling clearing siding "
    "paving parking living dining during nothing something anything everything opening outing bedding"
)
"""Nouns that end like a doing."""

PARTS = _set(
    "wing wings head neck tail beak bill chest belly breast throat face ear ears eye eyes mouth nose paw paws fur "
    "coat body hood doors door engine engines feathers petals stem center sides wheels hands leash"
)
"""What a subject is made of: `on the wings` describes it. `center` is a flower's: its petals stand around it."""

PICTURES = _set(
    "photo photograph picture image shot view close closeup close-up painting drawing illustration portrait "
    "snapshot rendering scene"
)
SHOWING = _set("of shows showing features depicting depicts")
TAILS = (
    " in black and white",
    " stock photo",
    " in this photo",
    " in this picture",
    " in the photo",
    " in the picture",
)

GENERIC = _set(
    "bird birds dog dogs puppy cat cats kitten animal animals plane planes airplane airplanes aeroplane jet jets "
    "jetliner airliner aircraft helicopter car cars truck van suv vehicle bus motorcycle bicycle bike train boat "
    "ship flower flowers plant rose tulip sunflower daisy horse cow sheep duck goose owl eagle gull seagull hawk "
    "parrot fish butterfly insect shoe shoes boot boots sneaker sneakers sandal sandals dress shirt coat jacket "
    "pants trousers bag handbag purse man woman boy girl person people child"
)
"""What captioners call most subjects, for a caption that has none of the data set's own words."""
FAMILIES: tuple[frozenset[str], ...] = (
    _set("aircraft airplane plane aeroplane jet jetliner airliner helicopter biplane glider bomber"),
    _set("car vehicle suv sedan truck van coupe convertible hatchback wagon jeep automobile minivan"),
    _set("bird duck gull seagull sparrow hummingbird woodpecker owl hawk eagle pelican crow finch"),
    _set("pet dog puppy cat kitten"),
    _set("flower blossom rose daisy lily tulip orchid sunflower petunia bloom"),
    _set("animal dog cat bird horse cow sheep bear elephant"),
)
"""Words for one theme: a metaclass brings its whole family."""

_FUNCTION = ARTICLES | POSSESSIVES | PRONOUNS | COPULAS | PLACES_SECOND | WITH | _set("and or very while as")
_RELATIONS = _set("front top middle edge side bottom center body bunch group pile couple pair piece")
"""`on the side of the road` is on the road."""
_DIRECTIONS = _set("out up down away around off over above below through past")
_MOTION = _set(
    "flying swimming running walking driving jumping soaring taxiing landing floating playing eating drinking "
    "hovering taking climbing diving racing wading"
)


def tokens(text: str) -> list[str]:
    """The words of a text's first sentence: lower case, apostrophes and hyphens inside a word kept."""
    sentence = re.split(r"[.!?;\n]+(?:\s|$)", text.strip().lower().replace("\u2019", "'"), maxsplit=1)[0]
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", sentence)


def is_doing(token: str) -> bool:
    """Is it a present participle, going by its form?"""
    return len(token) > 4 and token.endswith("ing") and token not in _NO_DOING


def is_motion(token: str) -> bool:
    """A doing that changes what is seen around: flying over water is not swimming in it; sitting is like standing."""
    return token in _MOTION


def is_content(token: str) -> bool:
    """Does the word mean something alone?"""
    return token not in _FUNCTION and token not in _RELATIONS


def may_end(token: str, before: str) -> bool:
    """Can a context end in this word, after the one before? `and the` cannot, `outdoors` and `looking out` can."""
    return token not in _FUNCTION or token in ALONE or (token in _DIRECTIONS and is_doing(before))


def stem(token: str) -> str:
    """Branches -> branch, cars -> car; only to compare words."""
    for ending, rest in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", "")):
        if len(token) > 3 and token.endswith(ending) and not token.endswith(("ss", "us")):
            return token.removesuffix(ending) + rest
    return token
