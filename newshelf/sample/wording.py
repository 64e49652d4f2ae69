"""Titles and descriptions of the sample: each style in a dozen words, or left out of the title."""

import numpy as np

from newshelf.sample.palette import COLORS, MATERIALS

BRANDS = (
    "Alder & Finch, Brisa, Corvo, Dunmore, Elowen, Fjordlys, Galanthe, Halcyon Row, Ilmari, "
    "Juniper Lane, Kestrel, Lumen Atelier, Maren, Nordhavn"
)
_TITLE_WORDS = {
    "minimal": "minimal, pared-back, clean-lined, understated, simple, sleek, plain, essential",
    "classic": "classic, timeless, tailored, heritage, traditional, preppy, stately, old-school",
    "boho": "boho, bohemian, folk, nomad, festival, free-spirited, tribal-print, hippie",
    "deco": "art-deco, Gatsby, jazz-age, twenties, geometric, ballroom, sunburst, Chrysler",
    "romantic": "romantic, floral, sweetheart, blossom, dainty, garden-party, rosebud, fairy-tale",
    "urban": "urban, street, industrial, utility, athletic, workshop, colour-block, rugged",
}
_HINTS = {
    "minimal": "Nothing to distract from the shape. Quiet lines and no ornament. "
    "Reduced to what it needs. A calm, bare surface. Less, but better. "
    "Scandinavian restraint in every line. For those who like things plain",
    "classic": "Made the way it always was. A pattern your grandfather would know. "
    "Checks, stripes and good manners. For the office and the country house. "
    "Never out of fashion. Well-mannered and neatly finished. An heirloom in the making",
    "boho": "Woven zigzags and little beads. Picked up on a long journey, or so it seems. "
    "Fringes that move as you do. For campfires and open-air concerts. Wanderlust, by hand. "
    "Inspired by market stalls and desert skies. Loose, layered and carefree",
    "deco": "Fans and chevrons edged in gilt. As if made for a ballroom in 1925. "
    "Stepped lines like a skyscraper. Glamour between two wars. "
    "Symmetry with a cocktail in its hand. Rays that open like a fan. Champagne and saxophones",
    "romantic": "Petals, ribbons and a little lace. For love letters and long walks. "
    "Flowers scattered as after a spring storm. Soft, tender and a little dreamy. "
    "A bow where you would wish for one. Sweet as a first dance. Meant for a rose garden",
    "urban": "Bold blocks and hard edges. Built for concrete and late trains. "
    "Borrowed from the gym and the garage. Zips, bolts and racing stripes. "
    "Tough enough for the city. Ready for the skate park. Straight from the warehouse floor",
}
_FILLERS = (
    "Ships in a recycled box. A favourite of our team. Part of the new season. "
    "Care instructions are on the label. Made in small numbers. "
    "A gift that is used. Sits well with what you have. Designed in our own studio"
)
_MATERIAL_PHRASES = "made of {}, in {}, crafted from {}, with {}"
_STYLE_IN_TITLE, _COLOR_IN_TITLE, _MATERIAL_IN_TITLE = 0.45, 0.72, 0.68
_STYLE_IN_DESCRIPTION, _OTHERS_IN_DESCRIPTION = 0.85, 0.55


def write(
    style: str, color: str, material: str, noun: str, metal: str | None, rng: np.random.Generator
) -> tuple[str, str]:
    """Compose a title and a description; ``metal`` holds the stone of a piece of jewellery."""
    color_word = pick(rng, COLORS[color].words)
    material_word = pick(rng, MATERIALS[material].words)
    say_color, say_material = rng.random() < _COLOR_IN_TITLE, rng.random() < _MATERIAL_IN_TITLE
    words = [pick(rng, _TITLE_WORDS[style])] if rng.random() < _STYLE_IN_TITLE else []
    # A gold ring is not called yellow, nor a ruby red.
    words += [color_word] if say_color and metal is None else []
    words += [material_word] if say_material and metal is None else []
    title = " ".join([*words, noun])
    if metal is not None and say_material:
        title += f" with {material_word}" if metal != material else f" in {material_word}"
        title += f" in {metal.lower()}" if metal != material and rng.random() < 0.5 else ""
    sentences = []
    if rng.random() < _STYLE_IN_DESCRIPTION:
        sentences.append(pick(rng, _HINTS[style], ". "))
    if rng.random() < _OTHERS_IN_DESCRIPTION:
        made = pick(rng, _MATERIAL_PHRASES).format(material_word)
        sentences.append(f"{noun} {made}" if metal else f"{color_word} {noun} {made}")
    sentences.append(pick(rng, _FILLERS, ". "))
    order = rng.permutation(len(sentences))
    return _capital(title), " ".join(f"{_capital(sentences[place])}." for place in order)


def pick(rng: np.random.Generator, choices: str, separator: str = ", ") -> str:
    """Return one of the choices in a text."""
    words = choices.split(separator)
    return words[int(rng.integers(len(words)))]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
