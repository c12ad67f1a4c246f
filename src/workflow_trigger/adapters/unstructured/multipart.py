"""The streaming multipart/form-data encoder: pure, exact lengths, the closing boundary apart.

Source: https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from workflow_trigger.domain.media_types import is_media_type

_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file: `chunks` is called once, when the part's turn has come, and yields `length_bytes` bytes in all."""

    filename: str
    content_type: str
    length_bytes: int
    chunks: Callable[[], Iterable[bytes]]

    def __post_init__(self) -> None:
        # Names and types are made or checked by us; nothing that could end a header line ever gets here.
        if not _SAFE_NAME.fullmatch(self.filename):
            raise ValueError(f"not fit for a multipart header: {self.filename!r}")
        if not is_media_type(self.content_type):
            raise ValueError(f"not a media type: {self.content_type!r}")


class Encoder:
    """One form of several parts. Memory does not depend on their size or number.

    `closing` is the closing boundary; `content_length` is the exact length of the whole body, the boundary included.
    """

    def __init__(self, parts: Iterable[Part], *, boundary: str) -> None:
        self._parts = tuple(parts)
        self._boundary = boundary
        self._heads = [self._head(index, part) for index, part in enumerate(self._parts)]
        self.closing = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.content_type = f"multipart/form-data; boundary={boundary}"
        files_bytes = sum(part.length_bytes for part in self._parts)
        self.content_length = sum(map(len, self._heads)) + files_bytes + len(self.closing)

    def body_without_closing(self) -> Iterator[bytes]:
        """Everything but `closing`: a server cannot accept what has been sent so far."""
        for head, part in zip(self._heads, self._parts, strict=True):
            yield head
            yield from part.chunks()

    def _head(self, index: int, part: Part) -> bytes:
        line_break = "\r\n" if index else ""
        return (
            f"{line_break}--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="input_files"; filename="{part.filename}"\r\n'
            f"Content-Type: {part.content_type}\r\n\r\n"
        ).encode("ascii")
