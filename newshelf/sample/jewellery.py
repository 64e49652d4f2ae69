"""Jewellery: stones, and chains and motifs in six styles."""

import numpy as np

from newshelf.sample.palette import METALS, RGB, STONES, Metal, Stone, darker, lighter, mixed
from newshelf.sample.patterns import bow, flower
from newshelf.sample.pen import Path, Pen, Points, around, moved, ngon, points, spaced

_BAND = {"minimal": 2.6, "classic": 4.2, "boho": 4.6, "deco": 5.0, "romantic": 3.4, "urban": 7.5}
_PEARL = Metal((164, 146, 132), *STONES["Pearl"][1:3])
_T = np.linspace(0, 2 * np.pi, 40)
_HEART = np.stack([np.sin(_T) ** 3, (5 * np.cos(2 * _T) - 13 * np.cos(_T)) / 16], axis=1)
_HEART[:, 1] += (2 * np.cos(3 * _T) + np.cos(4 * _T)) / 16


def _stone(pen: Pen, path: Path) -> None:
    """Fill an outline with the product's stone, or with its metal."""
    stone, outline = STONES[pen.look.material], points(path)
    x, y = outline.mean(axis=0)
    with pen.local(x, y, 1):
        if stone.cut == "facet":
            _facets(pen, outline - (x, y), stone)
        elif stone.cut == "dome":
            pen.dome(outline - (x, y), METALS.get(pen.look.material, _PEARL))
        else:
            _cabochon(pen, outline - (x, y), stone)


def _facets(pen: Pen, outline: Points, stone: Stone) -> None:
    rng, reach = pen.look.rng, np.ptp(outline, axis=0).max() / 2
    girdle = outline[:: max(1, len(outline) // 12)]
    table = (np.roll(girdle, 1, axis=0) + girdle) * 0.29
    pen.shape(outline, darker(stone.rgb, 0.4))
    for place, here in enumerate(girdle):
        there, high, low = girdle[place - 1], table[place], table[(place + 1) % len(table)]
        light = -0.17 * (here + there).sum() / reach + rng.uniform(-0.3, 0.3)
        pen.shape(np.array([here, there, high]), _lit(stone, light + 0.12))
        pen.shape(np.array([here, high, low]), _lit(stone, light - 0.2))
    pen.shape(table, _lit(stone, 0.1))
    for place in range(0, len(table), 2):
        flash = _lit(stone, rng.uniform(-0.25, 0.6))
        pen.shape(np.array([(0, 0), table[place], table[place - 1]]), flash)
    x, y = table[len(table) * 5 // 8] * 0.6
    pen.shape(f"ngon {x},{y} {reach * 0.14} 4", "white")


def _lit(stone: Stone, light: float) -> RGB:
    if light > 0:
        return mixed(stone.rgb, stone.vein, min(light, 1))
    return darker(stone.rgb, min(-light, 0.75))


def _cabochon(pen: Pen, outline: Points, stone: Stone) -> None:
    rx, ry = reach = np.ptp(outline, axis=0) / 2
    matrix = stone.cut == "matrix"
    pen.shape(outline, darker(stone.rgb, 0.4))
    with pen.clipped(outline):
        for share in np.linspace(0.95, 0.2, 7):
            body = mixed(darker(stone.rgb, 0.3), lighter(stone.rgb, 0.14), 1 - share)
            pen.shape(outline * share - reach * 0.14 * (1 - share), body)
        for place, y in enumerate(np.linspace(-0.9, 0.9, 6)):
            drift = pen.look.rng.uniform(-0.3, 0.3, 5)
            knots = zip(np.linspace(-1.1, 1.1, 5) * rx, (y + drift) * ry, strict=True)
            vein = points("curve " + " ".join(f"{across},{down}" for across, down in knots))
            tone = stone.vein if matrix or place % 2 else darker(stone.rgb, 0.35)
            pen.line(vein, mixed(stone.rgb, tone, 0.6), reach.max() * (0.05 if matrix else 0.08))
        # Light that enters above leaves below: the glow of a translucent stone.
        pen.tint(outline * 0.48 + reach * 0.34, stone.vein, 0 if matrix else 0.26)
        pen.tint(outline * 0.3 + reach * 0.42, stone.vein, 0.2)
        pen.tint(f"disc {-rx * 0.34},{-ry * 0.42} {rx * 0.3},{ry * 0.17}", "white", 0.72)


def _wire(pen: Pen, path: Path) -> None:
    pen.line(path, "dark", 1.2)
    pen.line(moved(path, -0.2, -0.2), "light", 0.5)


def _chain(pen: Pen, path: Path) -> None:
    """Draw a wire, balls, beads, lozenges, blossoms or links along a path."""
    pen.on("m", _wire, pen, path)
    pen.on("r", pen.line, path, "dark", 0.9)
    pen.on("b", pen.line, path, "sienna-40", 1)
    for place, (x, y) in enumerate(spaced(path, pen.by(3.6, bd=4.4, r=5.2, u=4.8))):
        odd = place % 2
        pen.on("c", pen.ball, x, y, 1.75)
        pen.on("d", pen.shape, f"ngon {x},{y} 2.5 4", ("mid", "black+10")[odd], "light")
        pen.on("u", pen.tube, f"disc {x},{y} {('2.6,4.2', '4.2,2.6')[odd]}", 1.9, closed=True)
        if odd:
            pen.on("r", pen.ball, x, y, 1.7)
        else:
            pen.on("r", flower, pen, x, y, 2.6, "mid+30", "dark")
        if place % 3 == 2:
            pen.on("b", _stone, pen, f"disc {x},{y} 2.2")
        else:
            pen.on("b", pen.shape, f"disc {x},{y} 1.9", "accent", "second")


def _motif(pen: Pen, x: float, y: float, size: float) -> None:
    """Draw the style's centrepiece within about ``size`` units around (x, y)."""
    with pen.local(x, y, size):
        pen.by(_bezel, c=_halo, b=_dangles, d=_fan, r=_petals, u=_bolt)(pen)


def _bezel(pen: Pen) -> None:
    """Draw a single stone in a thin rim."""
    shapes = ("disc 0,0 .78", "box -.36,-.8 .36,.8", "ngon 0,0 .85 4")
    outline = points(shapes[pen.look.variant % 3])
    pen.shape(outline * 1.13, "dark")
    pen.shape(outline * 1.1 + 0.015, "light")
    _stone(pen, outline)


def _halo(pen: Pen) -> None:
    """Draw a round or oval stone with prongs in a halo of balls."""
    tall = 1 if pen.look.variant % 2 else 1.22
    pen.shape(f"disc 0,0 .84,{0.84 * tall}", "dark")
    for x, y in ngon(0, 0, 0.82, 15):
        pen.ball(x, y * tall, 0.15)
    _stone(pen, f"disc 0,0 .66,{0.66 * tall}")
    for x, y in ngon(0, 0, 0.66, 4, 45):
        pen.ball(x, y * tall, 0.12)


def _dangles(pen: Pen) -> None:
    """Draw a hammered disc with feathers and beads below."""
    for x, y, long in ((-0.62, 0.53, 0.85), (0, 0.72, 1.05), (0.62, 0.53, 0.85)):
        with pen.local(x, y, long):
            feather = "accent" if pen.look.variant % 2 else "mid"
            pen.shape("loop 0,.25 .21,.6 0,1 -.21,.6", feather, "dark", 0.02)
            pen.line("0,.3 0,.95", "dark", 0.05)
            pen.ball(0, 0.2, 0.13)
    pen.shape("disc 0,0 .86", "dark")
    pen.shape("disc -.01,-.01 .82", "mid")
    for place, (x, y) in enumerate(ngon(0, 0, 0.68, 15)):
        pen.shape(f"disc {x},{y} .1", "light" if place % 2 else "dark")
    drop = "loop 0,-.7 .31,-.1 .36,.3 0,.55 -.36,.3 -.31,-.1"
    _stone(pen, "disc 0,0 .52" if pen.look.variant % 3 else drop)


def _fan(pen: Pen) -> None:
    """Draw an octagon with a fan of enamel and metal above and steps below."""
    for place, turn in enumerate(np.linspace(196, 344, 9)):
        blade = f"0,.25 | arc 0,.25 1.15,1.15 {turn - 9},{turn + 9}"
        pen.shape(blade, ("mid", "black+10")[place % 2], "dark", 0.02)
    pen.line("arc 0,.25 1.15,1.15 188,352", "light", 0.1)
    for half, low in ((0.8, 0.95), (0.52, 1.12), (0.26, 1.28)):
        pen.shape(f"box {-half},.55 {half},{low}", "mid", "black+10", 0.02)
    pen.shape("ngon 0,.2 .8 8 22.5", "black+10")
    pen.shape("ngon 0,.2 .74 8 22.5", "light")
    _stone(pen, "ngon 0,.2 .64 8 22.5")


def _petals(pen: Pen) -> None:
    """Draw a flower around the stone, or a heart, between leaves."""
    leaf = mixed(pen.look.tones["mid"], (120, 150, 96), 0.35)
    for _ in pen.sides(axis=0):
        pen.shape("loop .3,.6 1.05,.4 1.1,.95 .5,.95", leaf, darker(leaf, 0.4), 0.02)
    if pen.look.variant % 2:
        pen.shape(_HEART * 0.95 + (0, 0.05), "dark")
        pen.shape(_HEART * 0.9 + (-0.01, 0.02), "light")
        _stone(pen, _HEART * 0.76 + (0, 0.03))
        return
    for x, y in ngon(0, 0, 0.62, 6, 30):
        for drift, radius, tone in ((0, 0.4, "dark"), (0.01, 0.36, "mid"), (0.08, 0.2, "light")):
            pen.shape(f"disc {x - drift},{y - drift} {radius}", tone)
    _stone(pen, "disc 0,0 .46")


def _bolt(pen: Pen) -> None:
    """Draw a heavy hexagon or square like a bolt, with rivets."""
    outline = points("ngon 0,0 1 6 30" if pen.look.variant % 2 else "box -.8,-.8 .8,.8 .12")
    pen.shape(outline, "dark")
    pen.shape(outline * 0.92 - 0.01, "mid")
    pen.shape(outline * 0.66, "dark")
    for x, y in outline[:: max(1, len(outline) // 6)] * 0.8:
        pen.ball(x, y, 0.09)
    _stone(pen, outline * 0.56)


def _ring(pen: Pen) -> None:
    """Draw a band seen from slightly above, the motif on top."""
    width = _BAND[pen.look.style]
    pen.tube("arc 50,61 26,27 -270,90", width)
    pen.line(f"arc 50,61 {26 - width / 2},{27 - width / 2} 190,350", "dark", 0.8)
    for x, y in spaced("arc 50,61 26,27 -270,90", 4.2):
        pen.on("b", pen.ball, x, y, 2.5)
    for x, y in around(50, 61, 27, 28, (208, 226, 314, 332)):
        pen.on("r", flower, pen, x, y, 3, "light", "dark")
        pen.on(
            "d", pen.shape, f"box {x - 2.8},{y - 3.4} {x + 2.8},{y + 3.4}", "black+10", "light", 0.9
        )
    for x, y in around(50, 61, 26, 27, range(20, 180, 32)):
        pen.on("u", pen.ball, x, y, 2.2)
    plain = pen.look.material in {"Gold", "Silver"} and pen.look.variant % 3 == 0
    if not pen.by(False, m=plain):
        _motif(pen, 50, pen.by(31, b=28), pen.by(15, m=10, du=16))


def _necklace(pen: Pen) -> None:
    """Draw a collar in a wide curve, with motifs at its front."""
    _chain(pen, "arc 50,26 35,40 178,2")
    pen.on("cb", _chain, pen, "arc 50,24 27,29 172,8")
    size = pen.by(9, m=6, c=8.5, b=8)
    for turn in pen.by((50, 70, 90, 110, 130), m=(90,)):
        ((x, y),) = around(50, 26, 35, 40, (turn,))
        _motif(pen, x, y + 1, size * (1 if turn == 90 else 0.66))


def _pendant(pen: Pen) -> None:
    for _ in pen.sides():
        pen.on("u", _chain, pen, "75,6 62,28 50,46")
        pen.on("mcbdr", pen.line, "75,6 62,28 50,46", "dark", 1.3)
        for x, y in spaced("75,6 62,28 50,46", 2.2):
            pen.on("mcbdr", pen.shape, f"disc {x - 0.2},{y - 0.2} .7", "light")
    pen.tube("disc 50,46 2.8,3.8", 1.4, closed=True)
    size = pen.by(19, m=13, b=15, d=18)
    _motif(pen, 50, 48 + size, size)


def _earrings(pen: Pen) -> None:
    """Draw a pair: studs, drops, hoops or dangling fans."""
    for x in (30, 70):
        pen.on("cbdr", _wire, pen, f"arc {x + 2.6},{pen.by(16, c=20)} 3,6 90,330")
        pen.on("u", pen.tube, f"arc {x},50 15,21 -80,260", 5.4)
        pen.on("m", _wire, pen, f"{x},37 {x},62")
        pen.on("m", pen.ball, x, 64, 2.4)
        pen.on("c", pen.line, f"{x},41 {x},50", "dark", 1)
        pen.on("c", _stone, pen, f"disc {x},60 8,10")
        pen.on("c", pen.ball, x, 50, 1.8)
        pen.on("r", bow, pen, x, 26, 8, "mid")
        pen.on("bdr", pen.line, f"{x},{pen.by(22, r=27)} {x},{pen.by(40, r=44)}", "dark", 1.2)
        pen.on("bd", pen.ball, x, 30, 2.4)
        y, size = pen.by((48, 14), m=(32, 7), c=(32, 9), r=(56, 13), u=(70, 8.5))
        _motif(pen, x, y, size)


def _bracelet(pen: Pen) -> None:
    """Draw a bangle or an open chain, motifs at the front."""
    back, front = "arc 50,48 37,22 180,360", "arc 50,48 37,24 180,0"
    width = _BAND[pen.look.style] * 1.25
    if pen.by(True, mdu=False) or pen.look.variant % 5 >= 3:
        _chain(pen, back)
        _chain(pen, front)
    else:
        pen.tube(back, width * 0.8)
        pen.tube(front, width)
        for x, y in around(50, 48, 37, 24, range(24, 170, 12)):
            stud = f"ngon {x},{y} {width * 0.36} {pen.by(6, d=4)}"
            pen.on("du", pen.shape, stud, "black+10", "light")
    size = pen.by(10, m=6.5, b=8.5, d=11)
    for turn in pen.by((90,), b=(60, 90, 120), cr=(38, 64, 90, 116, 142)):
        ((x, y),) = around(50, 48, 37, 24, (turn,))
        _motif(pen, x, y, size * (1 if turn == 90 else 0.74))


def _brooch(pen: Pen) -> None:
    pen.tube("16,62 84,38", 1.8)
    pen.ball(84, 38, 2.6)
    pen.on("m", pen.tube, "disc 50,50 27", 2.6, closed=True)
    for x, y in ngon(50, 50, 30, 10):
        pen.on("r", flower, pen, x, y, 5, "mid+30", "dark")
    for x, y in ngon(50, 50, 33, 6):
        pen.on("u", pen.tube, f"50,50 {x},{y}", 5)
    _motif(pen, 50, pen.by(50, b=40, d=48), pen.by(26, m=20, b=21, d=27))


JEWELLERY = {
    "Rings": _ring,
    "Necklaces": _necklace,
    "Pendants": _pendant,
    "Earrings": _earrings,
    "Bracelets": _bracelet,
    "Brooches": _brooch,
}
