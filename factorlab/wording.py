"""Numbers and names of languages as they are written in text; what does not exist is a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable

NOTHING = "–"
MINUS = "\N{MINUS SIGN}"


def number(value: object, digits: int = 2) -> str:
    """A fixed number of decimals: "0.86", "−0.05"."""
    x = _finite(value)
    if x is None:
        return NOTHING
    text = f"{x:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def significant(value: object, digits: int = 3) -> str:
    """About three significant digits, no exponent where it can be helped: "0.0123", "1,234"."""
    x = _finite(value)
    if x is None:
        return NOTHING
    if x == 0:
        return "0"
    size = math.floor(math.log10(abs(x)))
    if not -5 <= size <= 9:
        return f"{x:.{digits - 1}e}".replace("-", MINUS)
    return number(x, max(0, digits - 1 - size))


def count(value: object) -> str:
    """A whole number."""
    return number(value, 0)


def percent(share: object, digits: int = 1) -> str:
    """ "65.2 %" of 0.652."""
    x = _finite(share)
    return NOTHING if x is None else f"{number(100 * x, digits)} %"


def with_interval(middle: object, lower: object, upper: object, digits: int = 2) -> str:
    """ "0.86 [0.78, 0.92]"; the middle alone where there is no interval."""
    if _finite(lower) is None or _finite(upper) is None:
        return number(middle, digits)
    return f"{number(middle, digits)} [{number(lower, digits)}, {number(upper, digits)}]"


def probability(share: object, draws: int) -> str:
    """A share of draws; never "1", only above what so many draws can tell."""
    x = _finite(share)
    if x is None:
        return NOTHING
    step = 10.0 ** -min(3, max(1, int(math.log10(max(draws, 10)))))
    if x > 1 - step:
        return f"> {1 - step:g}"
    return f"< {step:g}" if x < step else number(x, len(f"{step:g}") - 2)


def listed(names: Iterable[object], most: int = 12) -> str:
    """ "a, b, c and 4 more"."""
    all_names = [str(name) for name in names]
    if len(all_names) <= most:
        return ", ".join(all_names)
    return f"{', '.join(all_names[:most])} and {len(all_names) - most} more"


def plural(n: int, word: str) -> str:
    """ "1 model", "2 models"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _finite(value: object) -> float | None:
    try:
        x = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return x if math.isfinite(x) else None


LANGUAGES = {
    "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip


def language_name(code: str) -> str:
    """ "Japanese" for "ja"; a code that is not known stands for itself."""
    return LANGUAGES.get(code, code)
