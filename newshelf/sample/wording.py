"""Titles and descriptions, in many words for few styles.

A style is never one fixed keyword: each has a dozen ways to be said, and a title may
leave it out altogether, so that reading it takes more than a lookup.
"""

from typing import NamedTuple

import numpy as np

from newshelf.sample.palette import COLORS, MATERIALS

__all__ = ["BRANDS", "Wording", "write"]


def _split(separator: str, text: str) -> tuple[str, ...]:
    return tuple(text.split(separator))


BRANDS = _split(
    ", ",
    "Alder & Finch, Brisa, Corvo, Dunmore, Elowen, Fjordlys, Galanthe, "
    "Halcyon Row, Ilmari, Juniper Lane, Kestrel, Lumen Atelier, Maren, Nordhavn",
)

_TITLE_WORDS: dict[str, tuple[str, ...]] = {
    "minimal": _split(
        ", ", "minimal, pared-back, clean-lined, understated, simple, sleek, plain, essential"
    ),
    "classic": _split(
        ", ", "classic, timeless, tailored, heritage, traditional, preppy, stately, old-school"
    ),
    "boho": _split(
        ", ", "boho, bohemian, folk, nomad, festival, free-spirited, tribal-print, hippie"
    ),
    "deco": _split(
        ", ", "art-deco, Gatsby, jazz-age, twenties, geometric, ballroom, sunburst, Chrysler"
    ),
    "romantic": _split(
        ", ", "romantic, floral, sweetheart, blossom, dainty, garden-party, rosebud, fairy-tale"
    ),
    "urban": _split(
        ", ", "urban, street, industrial, utility, athletic, workshop, colour-block, rugged"
    ),
}
_HINTS: dict[str, tuple[str, ...]] = {
    "minimal": _split(
        ". ",
        "Nothing to distract from the shape. Quiet lines and no ornament. "
        "Reduced to what it needs. A calm, bare surface. Less, but better. "
        "Scandinavian restraint in every line. For those who like things plain",
    ),
    "classic": _split(
        ". ",
        "Made the way it always was. A pattern your grandfather would know. "
        "Checks, stripes and good manners. For the office and the country house. "
        "Never out of fashion. Well-mannered and neatly finished. "
        "An heirloom in the making",
    ),
    "boho": _split(
        ". ",
        "Woven zigzags and little beads. "
        "Picked up on a long journey, or so it seems. Fringes that move as you do. "
        "For campfires and open-air concerts. Wanderlust, by hand. "
        "Inspired by market stalls and desert skies. Loose, layered and carefree",
    ),
    "deco": _split(
        ". ",
        "Fans and chevrons edged in gilt. As if made for a ballroom in 1925. "
        "Stepped lines like a skyscraper. Glamour between two wars. "
        "Symmetry with a cocktail in its hand. Rays that open like a fan. "
        "Champagne and saxophones",
    ),
    "romantic": _split(
        ". ",
        "Petals, ribbons and a little lace. For love letters and long walks. "
        "Flowers scattered as after a spring storm. "
        "Soft, tender and a little dreamy. A bow where you would wish for one. "
        "Sweet as a first dance. Meant for a rose garden",
    ),
    "urban": _split(
        ". ",
        "Bold blocks and hard edges. Built for concrete and late trains. "
        "Borrowed from the gym and the garage. Zips, bolts and racing stripes. "
        "Tough enough for the city. Ready for the skate park. "
        "Straight from the warehouse floor",
    ),
}
_FILLERS = _split(
    ". ",
    "Ships in a recycled box. A favourite of our team. Part of the new season. "
    "Care instructions are on the label. Made in small numbers. "
    "A gift that is used. Sits well with what you have. Designed in our own studio",
)
_MATERIAL_PHRASES = ("made of {}", "in {}", "crafted from {}", "with {}")

_STYLE_IN_TITLE, _COLOR_IN_TITLE, _MATERIAL_IN_TITLE = 0.45, 0.72, 0.68
_STYLE_IN_DESCRIPTION, _OTHERS_IN_DESCRIPTION = 0.85, 0.55


class Wording(NamedTuple):
    """What a product is called and how it is described."""

    title: str
    description: str


def write(
    style: str, color: str, material: str, noun: str, metal: str | None, rng: np.random.Generator
) -> Wording:
    """Compose a title and a description.

    Args:
        style: one of the styles.
        color: a name in ``COLORS``.
        material: a name in ``MATERIALS``.
        noun: what the product is.
        metal: of a piece of jewellery, what holds the stone.
        rng: decides what is said and what is left out.
    """
    color_word, material_word = _one(rng, COLORS[color].words), _one(rng, MATERIALS[material].words)
    say_color, say_material = rng.random() < _COLOR_IN_TITLE, rng.random() < _MATERIAL_IN_TITLE
    words = [_one(rng, _TITLE_WORDS[style])] if rng.random() < _STYLE_IN_TITLE else []
    # A gold ring is not called yellow, nor a ruby red.
    words += [color_word] if say_color and metal is None else []
    words += [material_word] if say_material and metal is None else []
    title = " ".join([*words, noun])
    if metal is not None and say_material:
        title += f" with {material_word}" if metal != material else f" in {material_word}"
        title += f" in {metal.lower()}" if metal != material and rng.random() < 0.5 else ""
    return Wording(
        title[0].upper() + title[1:],
        _describe(style, color_word, material_word, noun, metal is not None, rng),
    )


def _describe(
    style: str, color: str, material: str, noun: str, jewel: bool, rng: np.random.Generator
) -> str:
    sentences = []
    if rng.random() < _STYLE_IN_DESCRIPTION:
        sentences.append(_one(rng, _HINTS[style]))
    if rng.random() < _OTHERS_IN_DESCRIPTION:
        made = _one(rng, _MATERIAL_PHRASES).format(material)
        sentences.append(f"{noun} {made}" if jewel else f"{color} {noun} {made}")
    sentences.append(_one(rng, _FILLERS))
    order = rng.permutation(len(sentences))
    return " ".join(f"{sentences[place][0].upper()}{sentences[place][1:]}." for place in order)


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
