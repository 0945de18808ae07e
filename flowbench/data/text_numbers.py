"""Text that means numbers: decimal commas, thousands separators, percent and currency signs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.read_options import ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
#: A guess about the cells of a column, and an example.
Note = tuple[str, str]

_EXPONENT = r"([eE][+-]?[0-9]+)?"
_PLAIN = rf"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT}$"
_SPECIAL = r"^(?i)[+-]?(inf|infinity)$"
_WHOLE = r"^[+-]?[0-9]+$"
#: A comma, or a point, is the decimal sign if not exactly three digits follow, or if the digits before cannot
#: be a group.
_COMMA_DECIMAL = (
    rf"^[+-]?([0-9]*,([0-9]{{1,2}}|[0-9]{{4,}})|0[0-9]*,[0-9]+|[0-9]{{4,}},[0-9]+|,[0-9]+){_EXPONENT}$"
)
_COMMA_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}((,[0-9]{3}){2,}(\.[0-9]*)?|,[0-9]{3}\.[0-9]*)$"
_COMMA_EITHER = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
_POINT_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}((\.[0-9]{3}){2,}(,[0-9]*)?|\.[0-9]{3},[0-9]*)$"
_POINT_EITHER = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
_POINT_DECIMAL = (
    rf"^[+-]?([0-9]*\.([0-9]{{1,2}}|[0-9]{{4,}})|0[0-9]*\.[0-9]+|[0-9]{{4,}}\.[0-9]+|\.[0-9]+){_EXPONENT}$"
)
#: Groups of three digits separated by one of these signs.
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}([ \x{a0}\x{202f}\x{2009}'’][0-9]{3})+([.,][0-9]*)?$"
_GROUP_SIGNS = r"[ \x{a0}\x{202f}\x{2009}'’]"

#: The largest whole number up to which all are exact in float64.
EXACT = 2**53
#: Signs beside and between the digits of numbers, except commas and points; for Arrow and Python.
_DECORATION = "USD|EUR|GBP|JPY|CHF|[%$€£¥()\\s\u00a0\u202f\u2009'’]"
_CURRENCIES = ("$", "€", "£", "¥", "USD", "EUR", "GBP", "JPY", "CHF")
_CURRENCY = r"(USD|EUR|GBP|JPY|CHF|[$€£¥])"


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of text as numbers: `values: (n,)`, NaN for cells that are not numbers.

    `whole` says whether no number has decimals. `mark` is a sign beside the numbers that was removed. `fault`
    says that a number is ambiguous, and `notes` what was guessed.
    """

    values: Floats
    whole: bool = False
    mark: str | None = None
    fault: str | None = None
    notes: tuple[Note, ...] = ()


def decimal_sign(cells: list[str]) -> str | None:
    """The decimal sign that some `cells` show without doubt; None if there are none, or both signs."""
    import pyarrow as pa
    from pyarrow import compute

    texts = _bare(pa.array(cells, pa.string()))
    comma = bool(compute.any(_match(texts, _COMMA_DECIMAL)).as_py())
    comma |= bool(compute.any(_match(texts, _POINT_THOUSANDS)).as_py())
    point = bool(compute.any(_match(texts, _POINT_DECIMAL)).as_py())
    point |= bool(compute.any(_match(texts, _COMMA_THOUSANDS)).as_py())
    if comma == point:
        return None
    return "," if comma else "."


def read_numbers(known: "pa.ChunkedArray", reading: ReadOptions, decimal: str | None) -> Numbers:
    """Read trimmed text, null for a missing cell; `decimal` is the sign found in the file's other columns."""
    from pyarrow import compute

    plain, mark, notes = _undecorated(known)
    decimal, thousands = reading.decimal or decimal, reading.thousands
    example = _first(known, _match(plain, r"[,. '’\x{a0}\x{202f}]"))
    grouped = _match(plain, _GROUPED)
    if bool(compute.any(grouped).as_py()) and thousands in (None, " ", "'"):
        plain = compute.if_else(grouped, compute.replace_substring_regex(plain, _GROUP_SIGNS, ""), plain)
        notes.append(("numbers have a sign between their thousands", _first(known, grouped)))
    comma, groups = _signs(plain, decimal, thousands, given=reading.decimal is not None)
    if comma is None:
        return Numbers(
            np.full(len(known), np.nan),
            fault=f"`{example}` could be a number with decimals or one with thousands; say which with "
            "`--decimal ,` or `--thousands ,`, or leave the column out",
        )
    if groups:
        shape = rf"^[+-]?[1-9][0-9]{{0,2}}([{groups}][0-9]{{3}})+([{'.' if groups == ',' else ','}][0-9]*)?$"
        marked = _match(plain, shape)
        if bool(compute.any(marked).as_py()):
            plain = compute.if_else(marked, compute.replace_substring(plain, groups, ""), plain)
            example = _first(known, marked)
            notes.append((f"numbers have `{groups}` between their thousands", example))
    if comma == ",":
        marked = _match(plain, rf"^[+-]?([0-9]+,[0-9]*|,[0-9]+){_EXPONENT}$")
        # A point that does not separate thousands would be read as a second decimal sign.
        strange = _match(plain, r"\.")
        if bool(compute.any(marked).as_py()):
            notes.append(("numbers have decimal commas", _first(known, marked)))
        if reading.decimal == "," or thousands == "." or bool(compute.any(marked).as_py()):
            plain = compute.if_else(strange, "no number", plain)
        plain = compute.if_else(marked, compute.replace_substring(plain, ",", "."), plain)
    numeric = compute.or_(_match(plain, _PLAIN), _match(plain, _SPECIAL))
    import pyarrow as pa

    texts = compute.if_else(numeric, plain, None)
    values = np.asarray(texts.cast(pa.float64()).to_numpy()).astype(np.float64)
    if fault := merged_digits(texts, values):
        return Numbers(np.full(len(known), np.nan), mark=mark, fault=fault)
    whole = compute.all(_match(texts, _WHOLE), skip_nulls=True).as_py()
    return Numbers(values, bool(whole), mark, None, tuple(notes) if np.isfinite(values).any() else ())


def has_decimal_commas(texts: "pa.ChunkedArray") -> bool:
    """Whether most cells are numbers and some show without doubt that the comma is the decimal sign."""
    from pyarrow import compute

    bare = _bare(texts)
    commas = compute.sum(_match(bare, _COMMA_DECIMAL)).as_py() or 0
    others = compute.sum(compute.or_(_match(bare, _WHOLE), _match(bare, _COMMA_EITHER))).as_py() or 0
    return commas > 0 and commas + others > (len(texts) - texts.null_count) / 2


def merged_digits(texts: "pa.ChunkedArray", values: Floats) -> str | None:
    """The error message for whole numbers with more digits than a float64 holds, or None."""
    from pyarrow import compute

    if not len(values) or not np.nanmax(np.abs(values), initial=0) > EXACT:
        return None
    long = compute.fill_null(_match(texts, r"^\s*[+-]?[0-9]{16,}(\.0*)?\s*$"), False)
    digits = {text.strip().partition(".")[0] for text in compute.unique(texts.filter(long)).to_pylist()}
    rounded = {text: int(float(text)) for text in digits}
    if all(int(text) == number for text, number in rounded.items()):
        return None
    return describe_merging(f"such as {min(digits)}", len(digits), len(set(rounded.values())))


def describe_merging(which: str, before: int, after: int) -> str:
    """The error message for whole numbers above 2^53; `before` different ones become `after`."""
    merged = f", and {before:,} different values become {after:,}" if after < before else ""
    return (
        f"its whole numbers, {which}, go beyond 2^53, where the floating-point numbers of a model leave "
        f"gaps{merged}; subtract a constant from them, or leave the column out"
    )


def _signs(
    plain: "pa.ChunkedArray", decimal: str | None, thousands: str | None, *, given: bool
) -> tuple[str | None, str | None]:
    """The decimal sign and the thousands separator; (None, None) if they are ambiguous."""

    def count(pattern: str) -> int:
        from pyarrow import compute

        return compute.sum(_match(plain, pattern)).as_py() or 0

    def some(pattern: str) -> bool:
        return count(pattern) > 0

    if thousands in (",", "."):
        return ("." if thousands == "," else ","), thousands
    if given and decimal is not None:
        return decimal, "." if decimal == "," else ","
    commas, points = some(","), some(r"\.")
    if not commas and not (points and decimal == ","):
        return (".", "." if some(_POINT_THOUSANDS) else None)
    # If a column has numbers in two notations, cells in the rarer one are mistakes.
    comma_decimals = count(_COMMA_DECIMAL) + count(_POINT_THOUSANDS)
    comma_thousands = count(_COMMA_THOUSANDS)
    point_decimals = count(_POINT_DECIMAL)
    if comma_decimals > max(comma_thousands, point_decimals):
        return ",", "." if points else None
    if comma_thousands:
        return ".", ","
    if comma_decimals:
        return ".", None
    if commas and some(_COMMA_EITHER):
        if decimal is None:
            return None, None
        return decimal, "," if decimal == "." else None
    if points and decimal == "," and not some(_POINT_DECIMAL) and some(_POINT_EITHER):
        return ",", "."
    return ".", None


def _undecorated(known: "pa.ChunkedArray") -> tuple["pa.ChunkedArray", str | None, list[Note]]:
    """The text without percent and currency signs, and with a plain minus; the sign removed, and notes."""
    from pyarrow import compute

    notes: list[Note] = []
    mark = None
    plain = compute.replace_substring(known, "\u2212", "-")
    dashed = _match(known, "\u2212")
    if bool(compute.any(dashed).as_py()):
        notes.append(("`\u2212` is read as a minus sign", _first(known, dashed)))
    percent = _match(plain, r"^[^%]*[0-9.,]\s*%$")
    if bool(compute.any(percent).as_py()):
        all_ = compute.all(compute.or_(percent, _match(plain, r"^[+-]?0+$")), skip_nulls=True).as_py()
        if all_:
            notes.append(("values are numbers of percent", _first(known, percent)))
            mark = "%"
            plain = compute.if_else(percent, compute.replace_substring_regex(plain, r"\s*%$", ""), plain)
    money = _match(plain, rf"^\(?[+-]?\s*{_CURRENCY}\s*[+-]?[0-9.,]|[0-9.,]\s*{_CURRENCY}\)?$")
    if bool(compute.any(money).as_py()):
        each = {sign: compute.and_(money, compute.match_substring(plain, sign)) for sign in _CURRENCIES}
        counts = {sign: compute.sum(marked).as_py() or 0 for sign, marked in each.items()}
        sign = max(counts, key=lambda sign: counts[sign])
        # Of two currencies, cells in the rarer one are mistakes; if both are equally common, neither is read.
        if list(counts.values()).count(counts[sign]) == 1:
            money, mark = each[sign], sign
            notes.append((f"values are amounts in {mark}", _first(known, money)))
            bare = compute.replace_substring_regex(plain, rf"\s*{_CURRENCY}\s*", "")
            owed = _match(bare, r"^\([0-9.,' ]+\)$")
            bare = compute.if_else(owed, compute.replace_substring_regex(bare, r"^\((.*)\)$", r"-\1"), bare)
            plain = compute.if_else(money, bare, plain)
    return plain, mark, notes


def _bare(texts: Any) -> Any:
    """Text without the signs beside and between the digits of its numbers."""
    from pyarrow import compute

    return compute.replace_substring_regex(texts, _DECORATION, "")


def _match(texts: Any, pattern: str) -> Any:
    from pyarrow import compute

    return compute.match_substring_regex(texts, pattern)


def _first(known: "pa.ChunkedArray", marked: "pa.ChunkedArray") -> str:
    from pyarrow import compute

    found = compute.index(compute.fill_null(marked, False), True).as_py()
    return str(known[found].as_py()) if found >= 0 else ""
