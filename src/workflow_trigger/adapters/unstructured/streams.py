"""Answers of any size, read as they arrive: lists of jobs, and outputs. Memory does not depend on their length."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from workflow_trigger.domain.errors import Unavailable

_ENTRY_LIMIT = 4 * 1024 * 1024  # characters of one entry of a list
_SEPARATORS = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
_PAGE_NUMBER = b'"page_number"'
_NUMBER = re.compile(rb"\s{0,4}:\s{0,4}(\d{1,7})(?=\D)")
_PAGE_NUMBER_BYTES = 32  # of the name and its number, at most
_HEAD_BYTES = 32  # enough to tell an output from an error
_AROUND_JSON = b"\xef\xbb\xbf \t\r\n"
_OUTPUT = re.compile(rb'\[|\{(?!\s*"(?:detail|error|message)")')  # an array of elements; the contract leaves it open


class PageCounter:
    """The chunks of an output as they pass, and afterwards the last page that its elements name; 0 where none does.

    Source: https://docs.unstructured.io/api-reference/partition/document-elements (metadata.page_number)
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        """The same chunks. A number may be cut in two: what could be its beginning is looked at again."""
        rest = b""
        for chunk in self._chunks:
            yield chunk
            for text in (rest + chunk[:_PAGE_NUMBER_BYTES], chunk):
                # Split, and each number once: a pattern for all of it would take longer than the copy itself.
                for after in {each[:_PAGE_NUMBER_BYTES] for each in text.split(_PAGE_NUMBER)[1:]}:
                    if found := _NUMBER.match(after):
                        self.count = max(self.count, int(found[1]))
            rest = (rest + chunk[-_PAGE_NUMBER_BYTES:])[-_PAGE_NUMBER_BYTES:]


def whole_json(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of an output as they pass, without white space before them; only both ends are looked at.

    The beginning may come in pieces, and is looked at as a whole. A 200 may hold an error, or nothing; and where a
    connection's end is that of the body, half of an output.

    Raises:
        Unavailable: it is no whole array or object, or tells of an error.
    """
    rest, head = iter(chunks), b""
    while len(head) < _HEAD_BYTES and (chunk := next(rest, b"")):
        head = (head + chunk).lstrip(_AROUND_JSON)
    first = head[:1] if _OUTPUT.match(head) else b""
    last = head.rstrip(_AROUND_JSON)[-1:]
    if first:
        yield head
        del head
        for chunk in rest:
            last = chunk.rstrip(_AROUND_JSON)[-1:] or last
            yield chunk
    if first + last not in {b"[]", b"{}"}:
        raise Unavailable("what came in place of the output is no JSON, breaks off, or tells of an error")


def array_entries(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array, one after the other as its bytes arrive: memory does not depend on its length.

    The standard library's decoder finds in C where an object ends. A streaming parser in Python would take minutes for
    a list of 100 MB, and one in C would make the package depend on the processor.

    Raises:
        ValueError: it is no array of objects, or breaks off.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    text, has_begun = "", False
    for chunk in chunks:
        text += decode(chunk)
        if not has_begun and text.strip():
            text = text.lstrip()
            if text[0] != "[":
                raise ValueError("no array")
            text, has_begun = text[1:], True
        position = 0
        while (found := _SEPARATORS.match(text, position)) and (position := found.end()) < len(text):
            if text[position] == "]":
                return
            entry, end = _object_at(text, position)
            if entry is None:
                break
            yield entry
            position = end
        text = text[position:]
    raise ValueError("the array breaks off")


def _object_at(text: str, position: int) -> tuple[Mapping[str, Any] | None, int]:
    """The object that begins there, and where it ends; None as long as it is not complete."""
    if text[position] != "{":
        raise ValueError("not an array of objects")
    try:
        entry, end = _DECODER.raw_decode(text, position)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError:
        if len(text) - position > _ENTRY_LIMIT:
            raise
        return None, position
    return entry, end
