"""The media type that belongs to an object."""

import mimetypes
import re

OCTET_STREAM = "application/octet-stream"

# Only the table that Python ships: the same answer on every machine.
_BY_EXTENSION = mimetypes.MimeTypes()
_SAFE_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_VAGUE = {"", "binary/octet-stream", OCTET_STREAM}


def is_media_type(text: str) -> bool:
    """Whether a text can stand in a Content-Type header as it is."""
    return _SAFE_TYPE.fullmatch(text) is not None


def media_type(declared: str | None, key: str) -> str:
    """The declared type without its parameters; where nothing specific is declared, the type of the extension."""
    declared = (declared or "").partition(";")[0].strip().lower()
    candidates = (declared, _BY_EXTENSION.guess_type(key)[0] or "")
    return next((each for each in candidates if each not in _VAGUE and is_media_type(each)), OCTET_STREAM)
