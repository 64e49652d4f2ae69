"""Clothes, shoes, bags, scarves and hats, each in the cut that its style prefers."""

import numpy as np

from newshelf.sample.patterns import bow, flower, ornament, piece, trim
from newshelf.sample.pen import Pen, around, moved, points, sagging


def _folds(pen: Pen, top: float, bottom: float, spread: float, count: int) -> None:
    """Draw soft vertical creases that fan out from the waist."""
    for share in np.linspace(-spread, spread, count):
        x, low = 50 + share * 0.45, 50 + share + pen.look.rng.uniform(-1, 1)
        pen.fold([(x, top), (low, bottom)], 2.4, -0.3)
        pen.fold([(x + 1.6, top), (low + 2.4, bottom)], 1.6, 0.16)


def _buttons(pen: Pen, x: float, top: float, bottom: float, count: int) -> None:
    tone = pen.by("second", cd="mid")
    for y in np.linspace(top, bottom, count):
        pen.shape(f"disc {x},{y} .95", tone, f"{tone}-50", 0.25)


def _sleeves(pen: Pen, outline: str, patterned: str = "mcbdru") -> None:
    """Draw two sleeves; the cuff is between the third and the fourth corner."""
    for _ in pen.sides():
        piece(pen, outline, 0.8, plain=pen.look.style[0] not in patterned)
        pen.fold(points(outline)[[0, 3]], 2, -0.2)
        trim(pen, points(outline)[[3, 2]], 0.7)


def _dress(pen: Pen) -> None:
    """Draw a straight, A-line, tiered, flapper, full or colour-blocked dress."""
    wide, hem = pen.by(15, c=22, b=30, d=16, r=33), pen.by(88, c=80, b=92, d=82, r=84, u=72)
    waist = pen.by(12.5, cbr=9.5)
    cuff = pen.by("69,24 60,26", b="74,40 64.5,42")
    pen.on("cbr", _sleeves, pen, f"59,11 63,13 {cuff} 60,26")
    piece(pen, f"half curve {50 + waist},41 {50 + (waist + wide) * 0.56},56 {50 + wide},{hem}")
    _folds(pen, 46, hem, wide * 0.8, 5 if wide > 20 else 3)
    piece(pen, f"half 54.5,10 62,14 61,24 {50 + waist},42", 0.8)
    neck = f"curve 45.5,9.6 50,{pen.by(18, m=13)} 54.5,9.6"
    pen.hole(f"{neck} | 54.5,8 45.5,8")
    trim(pen, neck, 0.6)
    trim(pen, sagging(hem, wide, 2.4))
    pen.on("br", trim, pen, sagging(64, wide * 0.72), 0.8)
    pen.on("cdr", pen.line, sagging(41.5, waist, 0), pen.by("accent", c="second"), 2.4)
    pen.on("r", bow, pen, 50, 42, 6)


def _shirt(pen: Pen) -> None:
    _sleeves(pen, "66,20 71,24 81,72 73,75 67,44", "mcbr")
    piece(pen, "half 57,17 70,23 68.5,50 69.5,82")
    _folds(pen, 30, 80, 15, 2)
    pen.line("50,22 50,82", pen.by("seam", u="mid"), pen.by(0.5, u=1.6))
    pen.on("b", trim, pen, "curve 42,18 50,38 58,18", 0.7)
    pen.on("b", trim, pen, "30.5,82 69.5,82", 0.9)
    pen.on("mcdr", _buttons, pen, pen.by(51.6, m=50), 30, 76, pen.by(4, c=6))
    for _ in pen.sides():
        pen.on("mcdru", pen.shape, "50,22 58,15 61,22 55,29", pen.by("rgb+12", u="second"), "seam")
    for x in (45, 50, 55):
        pen.on("r", trim, pen, f"{x},30 {x},60", 0.6)
    pen.on("r", bow, pen, 50, 25, 6)
    pen.on("cd", pen.shape, "box 55,37 64,47", "rgb+8", "seam")


def _t_shirt(pen: Pen) -> None:
    _sleeves(pen, "67,22 74,25 85,44 75,50 68,40", "c")
    piece(pen, "half 59,19 74,25 70.5,48 71,84", 1.05)
    _folds(pen, 40, 84, 14, 2)
    pen.hole("disc 50,17.5 9,7.4")
    pen.line("arc 50,18 9.5,8 180,0", "seam", 1.6)
    trim(pen, "arc 50,19.4 9.5,8 180,0", 0.6)
    pen.on("m", pen.shape, "box 56,38 63,39.2", "seam")


def _skirt(pen: Pen) -> None:
    """Draw a pencil, pleated, tiered, sunray, full or wrap skirt."""
    hem = pen.by(82, m=84, c=78, b=90, u=66)
    wide = pen.by(17, c=28, b=35, d=24, r=38, u=22)
    piece(pen, f"half curve 63,17 {50 + wide * 0.78},38 {50 + wide},{hem}", 1.15)
    _folds(pen, 24, hem, wide * 0.85, pen.by(2, c=9, b=6, d=5, r=8))
    for share, y in ((0.72, 40), (0.88, 62)):
        pen.on("br", trim, pen, sagging(y, wide * share))
    trim(pen, sagging(hem, wide))
    pen.shape("box 36.5,14 63.5,20", "rgb-12", "seam")
    ornament(pen, 50, 17, 5)


def _trousers(pen: Pen) -> None:
    """Draw slim, pleated, harem, wide or striped legs."""
    wide, ankle = pen.by(7, c=7.5, b=12, d=13, r=10, u=6), pen.by(59, db=60)
    outer, inner = ankle + wide, ankle - wide * 0.75
    for _ in pen.sides():
        leg = f"curve 63.5,14 {pen.by(65, b=66.5)},34 {outer},91"
        piece(pen, f"{leg} | {inner},91 50.4,38 50.2,14", 0.9)
        pen.fold("54,40 56,86", 2.2, -0.28)
        trim(pen, f"{inner},91 {outer},91", 0.9)
        pen.on("du", pen.line, moved(leg, -1.6, 0), "accent", 1.7, solid=False)
    pen.shape("box 36.2,11 63.8,16", "rgb-12", "seam")
    for _ in pen.sides():
        pen.on("bru", pen.line, "curve 50,14 53,22 52,28", "second", 0.8)


def _coat(pen: Pen) -> None:
    """Draw a single- or double-breasted coat, or one with a trim or a zip."""
    _sleeves(pen, "66,20 71,24 81,66 73,69 67,44", "mcbr")
    flare = pen.by(20.5, rc=24)
    piece(pen, f"half 57,12 71,18 68,48 {50 + flare},90", 1.2)
    pen.line("50,34 50,90", "seam", 0.7)
    for _ in pen.sides():
        pen.fold("62,40 65,90", 3, -0.3)
        pen.shape("56,12 61,15 63,27 50,42 50,34", pen.by("rgb-20", ud="second"), "seam")
        pen.line("57,62 66,60", "rgb-20", 1.5)
    pen.shape("44.5,11 55.5,11 50,33", "rgb-50")
    pen.on("u", pen.tube, "50,33 50,89", 1.8)
    for x in (53, 45):
        pen.on("mcdr" if x > 50 else "cd", _buttons, pen, x, 44, 76, pen.by(4, m=2))
    pen.on("br", pen.line, "31.5,50 68.5,50", "accent", 2.6)
    pen.on("br", trim, pen, "curve 44,12 48,30 50,44 50,88", 0.7)
    pen.on("r", bow, pen, 50, 51, 6)
    trim(pen, sagging(90, flare, 0), 0.9)


def _shoes(pen: Pen) -> None:
    """Draw a flat, pump, sandal, T-strap or trainer, seen from the side."""
    pen.on("u", pen.shape, "box 13,68 90,77 3.5", "whitesmoke", "dark")
    pen.on("u", pen.line, "16,72.5 87,72.5", "accent", 1.3)
    pen.on("cdr", pen.shape, f"14,60 24,62 {pen.by(22, r=18.6)},84 14,84", "rgb-50")
    pen.on("cdr", pen.shape, "loop 20,64 50,79 89,80 89,83 52,83 24,68", "rgb-50")
    pen.on("mb", pen.shape, "box 13,70 89,74.5 1.8", pen.by("rgb-50", b="tan-10"))
    pen.on("mb", pen.shape, "loop 15,51 25,44 38,57 50,60 30,60", "rgb-60")
    upper = pen.by(
        "loop 14,50 24,46 34,57 48,60 66,56 82,61 88,70 50,72 14,71",
        cdr="loop 14,42 22,48 38,64 58,66 72,66 86,73 90,80 60,80 38,76 22,66 13,56",
        u="loop 14,40 24,36 32,46 44,42 62,54 84,60 90,69 50,71 14,70",
    )
    piece(pen, upper, 0.7)
    pen.fold("60,68 84,72", 3, 0.3)
    pen.on("m", pen.line, "curve 56,58 58,66 54,72", "seam", 0.6)
    for x in (0, 5, 10, 15):
        pen.on("u", pen.line, [(42 + x, 41 + x * 0.8), (47 + x, 50 + x * 0.6)], "second", 1.2)
    pen.on("u", pen.line, "curve 22,66 34,56 40,68", "accent", 2)
    pen.on("d", pen.line, "curve 18,50 34,44 48,62", "accent", 2)
    pen.on("cdr", ornament, pen, 72, 67, 6)
    pen.on("b", trim, pen, "curve 34,57 48,60 66,56", 0.8)


def _boots(pen: Pen) -> None:
    high, tone = pen.by(20, m=34, c=14, b=26, d=22), pen.by("rgb-55", u="black+10")
    pen.shape("box 24,82 80,88 2.5", tone)
    pen.on("cdr", pen.shape, "24,80 38,82 35,95 25,95", tone)
    pen.on("cdr", pen.shape, "46,86 80,86 80,90 50,90", tone)
    for x in range(26, 80, 6):
        pen.on("u", pen.shape, f"box {x},87 {x + 4},91", tone)
    shaft = "49,50 52,64 66,68 78,74 80,83 50,84 25,84 26,60"
    piece(pen, f"loop 25,{high} 50,{high} {shaft}", 0.85)
    pen.fold(f"44,{high + 6} 42,64", 3, 0.24)
    pen.fold("curve 28,66 40,70 52,65", 2, -0.4)
    trim(pen, f"25,{high + 2} 50,{high + 2}", 0.9)
    for y in range(high + 8, 66, 6):
        pen.on("ru", pen.line, f"43,{y} 52,{y + 3}", "second", 1)
        pen.on("ru", pen.line, f"52,{y} 43,{y + 3}", "second", 1)
    pen.on("cb", pen.line, "25.5,62 51,62", "rgb-35", 2.2)
    pen.on("cbdr", ornament, pen, pen.by(46, r=37), pen.by(62, r=high + 5), 6)


def _bag(pen: Pen) -> None:
    """Draw a tote, satchel, fringed pouch, fan clutch, frame bag or backpack."""
    strap = f"arc 50,44 {pen.by('16,30', bu='24,36')} 190,350"
    pen.on("mcb", pen.line, strap, "rgb-40", 2.6)
    pen.on("dru", pen.tube, strap, 2)
    outline = pen.by(
        "box 24,38 76,86 2",
        c="loop 24,42 76,42 81,84 19,84",
        b="loop 27,40 50,38 73,40 79,66 50,84 21,66",
        d="arc 50,80 36,40 180,360 | 86,84 14,84",
        r="loop 30,46 50,42 70,46 82,72 64,86 36,86 18,72",
        u="box 25,26 75,88 9",
    )
    piece(pen, outline)
    pen.on("cb", pen.shape, "arc 50,44 27,20 180,0", "rgb-12", "seam")
    pen.on("cb", trim, pen, "arc 50,44 27,20 180,0", 0.8)
    pen.on("d", trim, pen, "15,83 85,83")
    pen.on("r", pen.tube, "30,46 70,46", 3)
    pen.on("r", flower, pen, 62, 58, 6, "accent")
    pen.on("u", pen.shape, "box 32,58 68,82 4", "rgb-20", "seam")
    pen.on("u", pen.tube, "34,63 66,63", 1.4)
    ornament(pen, pen.by(50, r=42), pen.by(64, d=42, r=50, u=44), 7)


def _scarf(pen: Pen) -> None:
    """Draw a scarf looped once, both ends hanging, or a square."""
    pen.by(_looped, dr=_square)(pen)


def _looped(pen: Pen) -> None:
    for side in pen.sides():
        low = 83 + 3 * side
        piece(pen, f"51,36 62,34 67,{low} 53,{low + 1}", 0.9)
        pen.fold(f"56,40 59,{low}", 2.4, -0.28)
        trim(pen, f"53,{low + 1} 67,{low}")
    piece(pen, "disc 50,27 25,17", 0.9)
    pen.hole("disc 50,23 13,8")
    pen.line("disc 50,23 13,8", "seam", 0.5, closed=True)
    for turn in (40, 75, 105, 140):
        pen.fold(f"arc 50,27 21,13 {turn - 14},{turn + 10}", 2, -0.34)


def _square(pen: Pen) -> None:
    piece(pen, "ngon 50,50 50 4 45", 1.15)
    pen.line("box 16.6,16.6 83.4,83.4", "accent", 2.6, closed=True)
    pen.line("box 21,21 79,79", "accent", 0.9, closed=True)
    for x, y in around(50, 50, 39.6, 39.6, (45, 135, 225, 315)):
        pen.on("r", flower, pen, x, y, 4.5, "accent")
        pen.on("d", pen.shape, f"ngon {x},{y} 4.5 4", "second", "accent", 0.8)
    pen.fold("20,80 80,20", 5, -0.18)
    pen.fold("26,84 84,26", 4, 0.14)


def _hat(pen: Pen) -> None:
    """Draw a beanie, fedora, straw hat, cloche, sun hat or cap."""
    pen.by(_brimmed, m=_beanie, u=_cap)(pen)


def _cap(pen: Pen) -> None:
    pen.shape("loop 60,58 84,60 97,70 78,70 58,66", "second")
    piece(pen, "arc 46,60 30,34 180,360 | 76,64 16,64", 0.9)
    pen.line("arc 46,60 12,33 190,350", "seam", 0.6, solid=False)
    pen.shape("box 40,44 56,54 2", "accent", "second")


def _beanie(pen: Pen) -> None:
    piece(pen, "arc 50,60 27,40 180,360 | 77,74 23,74", 0.7)
    pen.shape("box 21.5,62 78.5,77 3", "rgb-8", "seam")


def _brimmed(pen: Pen) -> None:
    wide = pen.by(40, b=46, d=31, r=47)
    pen.shape(f"disc 50,68 {wide},{wide * pen.by(0.27, d=0.42)}", "rgb-10", "seam")
    pen.shape(f"disc 50,66 {wide * 0.95},{wide * 0.2}", "rgb")
    crown = f"arc 50,58 25,{pen.by(28, d=34)} 180,360 | 76,68 24,68"
    piece(pen, pen.by(crown, c="half curve 50,33 60,28 68,36 73,66"), 0.8)
    pen.line("curve 25.5,63 50,67 74.5,63", "accent", 6)
    trim(pen, "curve 25.5,63 50,67 74.5,63", 0.8)
    for x, size in ((66, 6), (57, 4.4), (73, 4)):
        pen.on("r", flower, pen, x, 61, size, "accent+20")
    pen.on("b", pen.shape, "loop 68,64 78,46 86,30 80,48 72,64", "second", "accent")
    for x, y in around(68, 62, 15, 15, (245, 270, 295)):
        pen.on("d", pen.line, f"68,62 {x},{y}", "second", 2)
    pen.on("d", ornament, pen, 68, 62, 6)


CLOTHING = {
    "Dresses": _dress,
    "Shirts": _shirt,
    "T-Shirts": _t_shirt,
    "Skirts": _skirt,
    "Trousers": _trousers,
    "Coats": _coat,
    "Shoes": _shoes,
    "Boots": _boots,
    "Bags": _bag,
    "Scarves": _scarf,
    "Hats": _hat,
}
