"""One accent colour, and what is derived from it so that everything stays readable (WCAG 2.2, 1.4.3: 4.5 to 1)."""

_ENOUGH = 4.5
_STEP = 0.04
_SURFACES = {"light": "#f4f5f7", "dark": "#23262d"}
"""The least favourable background that links stand on, as in style.css."""

WHITE, BLACK = "#ffffff", "#000000"


def style(accent: str) -> str:
    """Return a style sheet with the accent, the text on it, and links of its hue, for light and for dark."""
    text = WHITE if contrast(accent, WHITE) >= _ENOUGH else BLACK
    away = BLACK if text == WHITE else WHITE
    common = f"--accent: {accent}; --accent-hover: {_mixed(accent, away, 0.14)}; --accent-text: {text}"
    light, dark = (_readable(accent, surface) for surface in _SURFACES.values())
    return (
        f":root {{ {common}; --link: {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ --link: {dark} }} }}\n"
    )


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours `#rrggbb`, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _readable(colour: str, surface: str) -> str:
    """Return the colour, as much darker or lighter as it must be to be read on a surface."""
    target = BLACK if _luminance(surface) > 0.5 else WHITE
    share = 0.0
    while contrast(mixed := _mixed(colour, target, share), surface) < _ENOUGH and share < 1:
        share += _STEP
    return mixed


def _mixed(one: str, other: str, share: float) -> str:
    parts = (round(a + (b - a) * min(share, 1.0)) for a, b in zip(_parts(one), _parts(other), strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _luminance(colour: str) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (part / 255 for part in _parts(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _parts(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
