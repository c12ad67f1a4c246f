"""The media type that belongs to an object, and the extension of its key that tells it."""

import mimetypes
import re

OCTET_STREAM = "application/octet-stream"
GZIP = "application/gzip"

# The extensions that the vendor supports, with their types. The machine's own table differs from machine to machine.
_SUPPORTED = """
text/csv csv
text/html htm html
text/markdown md
text/org org
text/plain txt prn eth
text/tab-separated-values tsv
text/x-dif dif
text/x-rst rst
image/bmp bmp
image/heic heic
image/jpeg jpeg jpg
image/png png
image/tiff tiff
message/rfc822 eml
application/epub+zip epub
application/macwriteii mcw mw
application/msword doc dot
application/octet-stream pbd
application/pdf pdf
application/pkcs7-signature p7s
application/rtf rtf
application/vnd.dbf dbf
application/vnd.ms-excel xls et
application/vnd.ms-outlook msg
application/vnd.ms-powerpoint ppt pot
application/vnd.ms-powerpoint.presentation.macroenabled.12 pptm
application/vnd.ms-word.template.macroenabled.12 dotm
application/vnd.oasis.opendocument.spreadsheet-flat-xml fods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.stardivision.impress sdp
application/vnd.sun.xml.writer.global sxg
application/x-abiword abw zabw
application/x-appleworks cwk
application/x-hwp hwp
application/xml xml
"""
SUPPORTED = {name: kind for kind, *names in map(str.split, _SUPPORTED.strip().splitlines()) for name in names}
# What is no document, but must not be called one.
_BY_EXTENSION = {**SUPPORTED, "tif": "image/tiff", "gz": GZIP, "zip": "application/zip", "json": "application/json"}
_BY_EXTENSION |= {"bz2": "application/x-bzip2", "xz": "application/x-xz", "z": OCTET_STREAM, "br": OCTET_STREAM}
# Of what the vendor does not name, where nothing is declared: Python's own table, without that of the machine.
_OTHERS = mimetypes.MimeTypes().types_map[True]
# Of Content-Encoding. Uploaders write others that are none, utf-8 or base64 for one, and store the plain bytes.
_CODINGS = {"gzip": (GZIP, ".gz"), "x-gzip": (GZIP, ".gz"), "zstd": ("application/zstd", ".zst")}
_CODINGS |= dict.fromkeys(("br", "deflate", "compress", "x-compress", "dcb", "dcz"), (OCTET_STREAM, ".encoded"))

_SAFE_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_VAGUE = {"", "binary/octet-stream", OCTET_STREAM, "application/unknown", "application/x-unknown"}
_VAGUE |= {"application/x-download", "application/force-download", "application/download"}
_VAGUE |= {"multipart/form-data", "application/x-www-form-urlencoded"}
_SPECIFIC = {*SUPPORTED.values(), "text/xml", "text/rtf"} - {OCTET_STREAM, "text/plain"}  # and known to the vendor

_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,10})$")
# Behind the extension: what is left of a query string, an editor's mark, a copy's number, a version or a date.
_DECORATIONS = r"[?#;&].*", r"~", r"\.(?:bak|old|orig|tmp)", r"[ _-]*\((?:\d+|copy)\)", r"[ _-]+copy"
_DECORATED = re.compile(
    rf"\.([a-z0-9]{{1,10}})(?:{'|'.join(_DECORATIONS)}|(?:[._-]v?\d+)+(?:t\d+z?)?)$",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
_QUERY = re.compile(r"(?:\?|%3F)[^?]*=.*", re.DOTALL | re.IGNORECASE)
_SPACES = re.compile(r"(?:[\s\u200b\ufeff]|%20)+$")


def is_media_type(text: str) -> bool:
    """Whether a text can stand in a Content-Type header as it is."""
    return _SAFE_TYPE.fullmatch(text) is not None


def extension_of(key: str) -> str:
    """The extension of an object key, in lower case and without a dot; '' where it has none.

    A known extension counts under decoration, too: spaces at the end, a query string, a version suffix.
    """
    name = without_query(key).rpartition("/")[2][1:]  # without its first character: a dot there begins no extension
    plain = _SUFFIX.search(name)
    for found in (plain, _DECORATED.search(name)):
        if found and found[1].lower() in _BY_EXTENSION:
            return found[1].lower()
    return plain[1].lower() if plain else ""


def without_query(key: str) -> str:
    """A key without the query string of an address that somebody made a key of, and without spaces at its end.

    A question mark that follows no known extension belongs to the name, or to that of a folder.
    """
    before = _QUERY.sub("", key)
    extension = _SUFFIX.search(before)
    is_query = extension is not None and extension[1].lower() in _BY_EXTENSION
    return _SPACES.sub("", before if is_query else key)


def media_type(declared: str | None, key: str) -> str:
    """The type of a known extension, unless the declared one is of the same family, is known as well and says more.

    The vendor trusts a declared type that it knows, so that a wrong one costs the document; one that it may not know,
    like `image/jpg`, tells it nothing. Where the extension says nothing, a declared type counts if it is specific.
    """
    declared = (declared or "").partition(";")[0].strip().lower()
    is_specific = is_media_type(declared) and declared not in _VAGUE
    extension = extension_of(key)
    known = _BY_EXTENSION.get(extension)
    if known is None:
        return declared if is_specific else _OTHERS.get(f".{extension}", OCTET_STREAM)
    is_text = known == "text/plain" and declared.startswith("text/")
    return declared if declared in _SPECIFIC and (is_text or _family(declared) == _family(known)) else known


def _family(kind: str) -> str:
    """What may stand for each other: all images; `text/xml` and `application/xml`."""
    return "image" if kind.startswith("image/") else kind.partition("/")[2]


def encoded_as(content_encoding: str | None) -> tuple[str, str] | None:
    """The media type of an object that is stored encoded, and the extension that says so; None where it is not.

    It is sent as it is stored, since the length of the request has to be known before the first byte.
    """
    encodings = [each.strip().lower() for each in (content_encoding or "").split(",")]
    return next((_CODINGS[each] for each in reversed(encodings) if each in _CODINGS), None)
