"""Titles and descriptions of the sample: each style in a dozen words, or left out of the title."""

from collections.abc import Sequence

import numpy as np

from newshelf.config import Language
from newshelf.sample.palette import COLORS, MATERIALS, SHOP

_STYLE_IN_TITLE, _COLOR_IN_TITLE, _MATERIAL_IN_TITLE = 0.45, 0.72, 0.68
_STYLE_IN_DESCRIPTION, _OTHERS_IN_DESCRIPTION = 0.85, 0.55


def write(
    language: Language,
    style: str,
    color: str,
    material: str,
    noun: str,
    metal: str | None,
    rng: np.random.Generator,
) -> tuple[str, str]:
    """Compose a title and a description; ``metal`` holds the stone of a piece of jewellery."""
    words = SHOP["wording"][language]
    color_word = pick(rng, COLORS[color].words[language])
    material_word = pick(rng, MATERIALS[material].words[language])
    say_color, say_material = rng.random() < _COLOR_IN_TITLE, rng.random() < _MATERIAL_IN_TITLE
    said = {"noun": noun}
    if rng.random() < _STYLE_IN_TITLE:
        said["style"] = pick(rng, words["styles"][style])
    # A gold ring is not called yellow, nor a ruby red.
    if say_color and metal is None:
        said["color"] = color_word
    if say_material:
        said["material"] = material_word
        if metal not in (None, material) and rng.random() < 0.5:
            said["metal"] = name_of(str(metal), language).lower()
    forms = words["title" if metal is None else "solid" if metal == material else "set"]
    title = words["space"].join(
        form.format(said[word]) for word, form in forms.items() if word in said
    )
    sentences = []
    if rng.random() < _STYLE_IN_DESCRIPTION:
        sentences.append(pick(rng, words["hints"][style]))
    if rng.random() < _OTHERS_IN_DESCRIPTION:
        made = pick(rng, words["made"]).format(material_word)
        sentences.append(words["space"].join([*([] if metal else [color_word]), noun, made]))
    sentences.append(pick(rng, words["others"]))
    shuffled = [_capital(sentences[place]) for place in rng.permutation(len(sentences))]
    return _capital(title), words["stop"].join([*shuffled, ""]).rstrip()


def name_of(name: str, language: Language) -> str:
    """Return the name of a category, a metal or a size in the language."""
    return str(SHOP["names"][language].get(name, name))


def pick(rng: np.random.Generator, choices: str | Sequence[str]) -> str:
    """Return one of the choices, which may be in one text."""
    words = choices.split(", ") if isinstance(choices, str) else choices
    return words[int(rng.integers(len(words)))]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
