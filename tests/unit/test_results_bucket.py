"""What the results bucket makes of an output: whole, in parts that S3 takes, whatever pieces it arrives in."""

from typing import Any

import pytest

from workflow_trigger.adapters.s3_results import ResultsBucket

_PART_BYTES = 5 * 1024 * 1024  # S3 allows no smaller part, but for the last


class FakeBucket:
    """An S3 client that keeps what it is given, as it is at the time of the call."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **_: {"UploadId": "1"}

    def put_object(self, *, Body: bytearray, **_: Any) -> None:  # noqa: N803 (the names are boto3's)
        self.parts.append(bytes(Body))

    def upload_part(self, *, PartNumber: int, Body: bytearray, **_: Any) -> Any:  # noqa: N803
        assert PartNumber == len(self.parts) + 1
        self.parts.append(bytes(Body))
        return {"ETag": "1"}


@pytest.mark.parametrize("piece_bytes", [65_537, _PART_BYTES - 1, 2 * _PART_BYTES + 1])
@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (0, 1),
        (3, 1),
        (_PART_BYTES - 1, 1),
        (_PART_BYTES, 1),
        (_PART_BYTES + 1, 2),
        (2 * _PART_BYTES, 2),
        (2 * _PART_BYTES + 7, 3),
    ],
)
def test_output_is_stored_whole_in_parts_that_s3_takes(piece_bytes: int, size: int, parts: int) -> None:
    content = (b"0123456789abcdefg" * (size // 17 + 1))[:size]
    pieces = (content[start : start + piece_bytes] for start in range(0, size, piece_bytes))
    stored = FakeBucket()
    client: Any = stored
    ResultsBucket(client).put({"bucket": "b", "key": "k"}, pieces, {})
    assert b"".join(stored.parts) == content
    assert len(stored.parts) == parts
    assert all(len(part) >= _PART_BYTES for part in stored.parts[:-1])
