"""The declared type counts, unless it says nothing."""

import pytest

from workflow_trigger.domain.media_types import media_type


@pytest.mark.parametrize(
    ("declared", "key", "chosen"),
    [
        ("application/pdf", "a.txt", "application/pdf"),
        ("text/html; charset=utf-8", "a", "text/html"),
        ("binary/octet-stream", "a.pdf", "application/pdf"),
        ("text/plain\r\nX: 1", "a.pdf", "application/pdf"),
        ("nonsense", "a", "application/octet-stream"),
        (None, "a", "application/octet-stream"),
    ],
)
def test_the_declared_type_counts_unless_it_says_nothing(declared: str | None, key: str, chosen: str) -> None:
    assert media_type(declared, key) == chosen
