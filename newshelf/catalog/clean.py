"""Cleaning of product texts: removes markup, escapes, control and zero-width characters.

Training and serving share it. It is no HTML parser: whatever looks like markup is removed, in
time linear in the length of the text.
"""

import html
import re
import unicodedata
from html.entities import html5

_PASSES = 4
"""Maximum nesting of markup in escapes, or in text that other markup separates."""
_LONGEST_WORD = 1_000
"""Words above this length are not normalised to NFC."""

_WITHIN_WORDS = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q s samp "
    "small span strike strong sub sup time tt u var wbr"
)
"""Elements within words: ``m<sup>2</sup>`` is ``m2``. All others separate words."""
_BETWEEN_WORDS = (
    "address area article aside audio base blockquote body br button canvas caption center col "
    "colgroup dd details dialog dir div dl dt embed fieldset figcaption figure footer form frame "
    "g h1 h2 h3 h4 h5 h6 head header hr html iframe img input legend li link main map meta nav "
    "noscript object ol optgroup option p param path picture pre rp rt ruby script section select "
    "source style summary svg table tbody td template textarea tfoot th thead title tr track ul "
    "use video"
)
_INLINE = frozenset(_WITHIN_WORDS.split())
_ELEMENTS = _INLINE.union(_BETWEEN_WORDS.split())
_SIGNS = ("<", "&", "[", "]]>", "{{", "data:", "DATA:", "Data:")
"""Texts without any of them have no markup; a cheap check."""
_MARKUP = re.compile(
    r"""<!--(?:-?>|.*?(?:--!?>|\Z))
    | <(?P<hidden>script|style)\b[^>]*+(?:>.*?(?:</(?P=hidden)\b[^>]*+>?|\Z)|\Z)
    | <!\[CDATA\[ | \]\]>
    | <[!?][a-z\[][^<>]*+(?:>|\Z)
    | <(?P<close>/?)(?P<name>[a-z][\w:.-]*+)
      (?P<rest>(?:[^<>"'=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+|["'])*+)(?P<end>>?)
    | \[(?P<code_close>/?)(?P<code>[a-z][\w-]*+)(?P<code_rest>(?:[\s=][^][<>]*+)?)\]
    | \{\{[^{}]*+\}\}
    | \b(?-i:data|DATA|Data):
      (?:(?:image|text|application|audio|video|font)/[^\s,:<>]*+|;base64),[^\s"'<>)]*+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_CLOSED = re.compile(r"[<\[]/([a-z][\w:.-]*)", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\w=")
_ESCAPED = re.compile(r"&(?:(?:amp|\#0{0,5}38|\#x0{0,5}26);)++", re.IGNORECASE)
_ENTITY = re.compile(
    r"&(?:\#\d{1,7}(?!\d);?|\#x[\da-f]{1,6}(?![\da-f]);?"
    r"|(?P<name>[a-z][a-z\d]{1,31}(?:;|(?![a-z\d=;]))))",
    re.IGNORECASE,
)
_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff\ufdd0-\ufdef]"
    # Joiners matter in emoji, Persian and Indic words, not after ASCII.
    "|(?<![^\0-\x7f])[\u200c\u200d]+"
)


def clean_text(text: str) -> str:
    """Return ``text`` as a shop's page shows it, on one line and in NFC.

    Removes tags, comments, declarations, the contents of scripts and styles, shortcodes
    (``[vc_row]``, ``[b]…[/b]``), directives (``{{widget …}}``), ``data:`` URLs, and control and
    zero-width characters. Entities become their characters, even if escaped several times; markup
    that results is removed too. ``a < b``, ``5<10``, ``<3`` and ``<XL>`` are text: a tag has an
    HTML element's name or an attribute, or is closed.

    The function is idempotent.
    """
    for _ in range(_PASSES):
        cleaned = _cleaned_once(text)
        if cleaned == text:
            return text
        text = cleaned
    # Only an attack is nested this deep: remove every character of markup.
    text = re.sub(r"[][<>&{}:]", " ", text)
    for _ in range(_PASSES):
        text = _cleaned_once(text)
    return text


def _cleaned_once(text: str) -> str:
    if any(sign in text for sign in _SIGNS):
        closed = {name.lower() for name in _CLOSED.findall(text)}
        text = _MARKUP.sub(lambda match: _without_markup(match, closed), text)
        text = _ENTITY.sub(_character, _ESCAPED.sub("&", text))
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(map(_normalised, _UNSEEN.sub("", text).split()))


def _normalised(word: str) -> str:
    # Sorting many combining marks takes quadratic time.
    return word if len(word) > _LONGEST_WORD else unicodedata.normalize("NFC", word)


def _without_markup(match: re.Match[str], closed: set[str]) -> str:
    found = match.group()
    if (name := match["name"]) is not None:
        name, rest = name.lower(), match["rest"]
        is_tag = bool(match["close"]) or name in closed or bool(_ATTRIBUTE.search(rest))
        if match["end"]:
            is_tag = is_tag or name in _ELEMENTS or rest.endswith("/")
        elif not is_tag or name not in _ELEMENTS:
            # A truncated text may end within a tag; ``5 <b`` does not.
            is_tag = False
        return found if not is_tag else "" if name in _INLINE else " "
    if (code := match["code"]) is not None:
        is_code = match["code_close"] or code.lower() in closed or "=" in match["code_rest"]
        return " " if is_code or ("_" in code and code.islower()) else found
    return " " if found[0] in "{dD" else ""


def _character(match: re.Match[str]) -> str:
    name = match["name"]
    return html.unescape(match.group()) if name is None else html5.get(name, match.group())
