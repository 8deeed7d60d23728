"""From pydantic's errors to a refusal: which fields are bad, in words that are safe to show.

The words come from whoever sent the payload. They are cleaned, cut and counted, so that one
payload of 1 MiB cannot become a log of 100 MB.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fedwaggle.errors import MetadataCode, MetadataError
from fedwaggle.text import printable, shown

__all__ = ["refusal_of"]

_LISTED_FIELDS = 10  # in the message of an error
_KEPT_PATHS = 100  # in the `paths` of an error
_MOST_ERRORS = 10_000  # listing more would cost a server seconds and hundreds of MB
_SHOWN_INPUT_BYTES = 4 * 1_048_576

_FIXES = {
    "missing": "send it, or give the field a default",
    "finite_number": "or annotate the field Annotated[float, pydantic.AllowInfNan(True)]",
}
_CONVERSIONS = {"int_type": "int(...)", "float_type": "float(...)", "bool_type": "bool(...)"}


def refusal_of(error: ValidationError, schema: str, payload_bytes: int) -> MetadataError:
    """Return a refusal that names the bad fields, short and safe to print.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    schema : str
        The name of the class.
    payload_bytes : int
        Size of the JSON that was read; 0 if the values were Python objects already.

    Returns
    -------
    MetadataError
        ``malformed`` if there is no JSON object, else ``invalid`` with the paths of the first
        100 bad fields. The message lists 10 and counts the rest. Its length has a limit.
    """
    count = error.error_count()
    if count > _MOST_ERRORS:
        message = f"{schema}: {count} bad fields, too many to list; both sides need the same class"
        return MetadataError(MetadataCode.INVALID, message)
    # Each error builds its own copy of its input, and that may be the whole payload.
    with_input = count * payload_bytes <= _SHOWN_INPUT_BYTES
    details = error.errors(include_url=False, include_context=False, include_input=with_input)
    if not details[0]["loc"] and details[0]["type"] in ("json_invalid", "dataclass_type"):
        reason = printable(details[0]["msg"], 200)
        return MetadataError(
            MetadataCode.MALFORMED, f"{schema}: expected a JSON object; {reason}; send pack(...)"
        )
    lines = [_describe(detail) for detail in details[:_LISTED_FIELDS]]
    if count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    paths = dict.fromkeys(_path(detail) for detail in details[:_KEPT_PATHS] if detail["loc"])
    return MetadataError(MetadataCode.INVALID, f"{schema}: {'; '.join(lines)}", list(paths))


def _describe(detail: ErrorDetails) -> str:
    """Return one line: the path, what was expected, what came, and what to do."""
    kind, value = detail["type"], detail.get("input")
    expected = printable(detail["msg"], 150).replace("Input should be", "expected")
    came = f", got {shown(value)}" if "input" in detail and kind != "missing" else ""
    fix = _FIXES.get(kind)
    if hasattr(value, "tolist"):  # a NumPy or a torch value
        fix = f"call {_CONVERSIONS.get(kind, '.tolist()')} on it"
    return f"{_path(detail) or 'the object'}: {expected}{came}{f' ({fix})' if fix else ''}"


def _path(detail: ErrorDetails) -> str:
    """Return the dotted path of a field. Its keys may be a stranger's words."""
    return printable(".".join(printable(str(part), 40) for part in detail["loc"]), 120)
