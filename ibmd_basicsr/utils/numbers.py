"""What counts as a number in an option: true and false, which Python takes for 1 and 0, do not."""
from __future__ import annotations

import math
from typing import Any


def is_integer(value: Any, least: int | None = None, most: int | None = None) -> bool:
    """Tell whether a value is an int (no bool, no 4.0), and within the bounds that are given, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and (
        (least is None or value >= least) and (most is None or value <= most))


def is_number(value: Any) -> bool:
    """Tell whether a value is an int or a finite float, no bool."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))
