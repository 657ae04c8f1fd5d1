"""Numbers as people read them: two digits and a unit."""

import math

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_number(value):
    """Write a number in two digits: ``3e-9``, ``0.04``, ``3.2``, ``128``; NaN is a dash.

    Examples
    --------
    >>> [format_number(x) for x in (3.2e-9, 0.042, 3.21, 128.4, float("nan"))]
    ['3e-9', '0.042', '3.2', '128', '-']
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size != 0 and not 1e-3 <= size < 1e6:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.0f}" if size >= 9.95 else f"{value:.2g}"


def format_seconds(seconds):
    """Write a duration: ``0.9 s``, ``12 s``, ``3 min 20 s``.

    Examples
    --------
    >>> [format_seconds(x) for x in (0.0004, 0.9, 11.8, 200.0)]
    ['<1 ms', '0.9 s', '12 s', '3 min 20 s']
    """
    if math.isnan(seconds):
        return "-"
    if seconds < 1e-3:
        return "<1 ms" if seconds > 0 else "0 s"
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 119.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def format_bytes(n_bytes):
    """Write a size in decimal units: ``40 MB``, ``3.1 GB``.

    Examples
    --------
    >>> [format_bytes(x) for x in (512, 40e6, 3.14e9)]
    ['512 B', '40 MB', '3.1 GB']
    """
    value, step = float(n_bytes), 0
    while value >= 999.5 and step < len(_BYTE_UNITS) - 1:
        value, step = value / 1000, step + 1
    unit = _BYTE_UNITS[step]
    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "B" else f"{value:.1f} {unit}"
