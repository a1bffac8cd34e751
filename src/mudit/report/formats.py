"""Numbers as people read them. Plain Unicode, so pages and figures share them."""

from __future__ import annotations

import math

_SUPERSCRIPTS = str.maketrans("-.0123456789", "⁻·⁰¹²³⁴⁵⁶⁷⁸⁹")
NAMES = {"mup": "μP", "sp": "sp"}
_AXES = {"batch": "batch size", "steps": "training steps"}
_OPTIMIZERS = {name.lower(): name for name in ("Adam", "AdamW", "SGD", "Lion", "Muon")}


def parametrization_name(parametrization: str) -> str:
    """`μP` for `mup`, others as they are."""
    return NAMES.get(parametrization, parametrization)


def axis_name(axis: str) -> str:
    """`batch size` for `batch`, `training steps` for `steps`."""
    return _AXES.get(axis, axis)


def at_size(axis: str, size: float) -> str:
    """`width 256`, `batch size 64`, `600 steps`."""
    return f"{size:,.0f} steps" if axis == "steps" else f"{axis_name(axis)} {size:g}"


def optimizer_name(optimizer: str) -> str:
    """`AdamW` for `adamw`, others as they are."""
    return _OPTIMIZERS.get(optimizer, optimizer)


def power_of_two(exponent: int) -> str:
    """2⁻⁸ for -8."""
    return f"2{str(exponent).translate(_SUPERSCRIPTS)}"


def hp_value(value: float) -> str:
    """2⁻⁸ for an exact power of two outside [0.5, 2], three significant digits otherwise."""
    if value > 0 and math.isfinite(value) and not 0.5 <= value <= 2:
        mantissa, exponent = math.frexp(value)
        if mantissa == 0.5:
            return power_of_two(exponent - 1)
    return f"{value:.3g}".replace("e-0", "e-")


def log2_value(exponent: float) -> str:
    """2⁻⁸ for -8, 2⁻⁶·⁵ for -6.5, three significant digits of the power for odder fractions."""
    if exponent == round(exponent):
        return power_of_two(round(exponent))
    if 4 * exponent == round(4 * exponent):
        return f"2{f'{exponent:g}'.translate(_SUPERSCRIPTS)}"
    return hp_value(2**exponent)


def number(value: float | None, form: str = ".2f") -> str:
    """The number in this form, with a true minus; ∞, or a dash if there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = format(value, form)
    return text.replace("-", "−") if text.strip("+-0.%") else text.lstrip("+-")


def hp_values(hps: dict[str, float]) -> str:
    """`lr = 2⁻⁸, phi.output = 0.5`."""
    return ", ".join(f"{name} = {hp_value(value)}" for name, value in hps.items())


def multiplier(value: float) -> str:
    """×4, ×1/4 or ×0.354."""
    if value > 0 and math.isfinite(value):
        inverse = 1 / value
        if value < 1 and abs(inverse - round(inverse)) < 1e-9 * inverse:
            return f"×1/{round(inverse)}"
    return f"×{value:.3g}"


def loss(value: float | None) -> str:
    """Four significant digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if 0.01 <= abs(value) < 10 else f"{value:.4g}"


def counted(share: float, interval: tuple[float, float]) -> str:
    """A share with its interval in whole percent: `62 % (55–69)`."""
    low, high = (f"{100 * end:.0f}" for end in interval)
    return f"{100 * share:.0f}\u202f% ({low}–{high})"


def percent(ratio: float) -> str:
    """5.5 %: one decimal, two below 1 %, none from 100 %."""
    value = 100 * ratio
    if math.isinf(value):
        return f"{number(value)}\u202f%"
    decimals = 0 if value >= 99.95 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{decimals}f}\u202f%"


def count(value: float) -> str:
    """1,234 below a million; 12.3M, 1.21B above."""
    if value < 1e6:
        return f"{value:,.0f}"
    return _scaled(value, ((1e9, "B"), (1e6, "M")))


def flops(value: float) -> str:
    """3.2 TFLOPs."""
    units = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
    if value < 1e6:
        return f"{value:,.0f} FLOPs"
    scaled = _scaled(value, units)
    return f"{scaled[:-1]} {scaled[-1]}FLOPs"


def duration(seconds: float) -> str:
    """0.42 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shape(sizes: tuple[int, ...]) -> str:
    """768×256."""
    return "×".join(str(size) for size in sizes) or "()"


def plural(number: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for scale, unit in units:
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"
