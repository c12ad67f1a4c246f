import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser

from workflow_trigger.adapters.unstructured.multipart import Encoder, Part


def part(name: str, content: bytes, content_type: str = "application/pdf", chunk: int = 3) -> Part:
    return Part(
        filename=name,
        content_type=content_type,
        length_bytes=len(content),
        chunks=lambda: (content[start : start + chunk] for start in range(0, len(content), chunk)),
    )


def body_of(encoder: Encoder) -> bytes:
    return b"".join(encoder.body_without_closing()) + encoder.closing


def test_two_files_give_exactly_these_bytes() -> None:
    encoder = Encoder([part("a.pdf", b"first"), part("b.txt", b"", "text/plain")], boundary="BOUNDARY")
    assert body_of(encoder) == (
        b"--BOUNDARY\r\n"
        b'Content-Disposition: form-data; name="input_files"; filename="a.pdf"\r\n'
        b"Content-Type: application/pdf\r\n\r\n"
        b"first\r\n"
        b"--BOUNDARY\r\n"
        b'Content-Disposition: form-data; name="input_files"; filename="b.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n"
        b"\r\n"
        b"--BOUNDARY--\r\n"
    )
    assert encoder.content_type == "multipart/form-data; boundary=BOUNDARY"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=6))
def test_length_is_exact_and_the_framework_reads_the_same_files(contents: list[bytes]) -> None:
    encoder = Encoder([part(f"{n}.pdf", content) for n, content in enumerate(contents)], boundary="b0undary")
    body = body_of(encoder)
    assert len(body) == encoder.content_length
    received: list[bytearray] = []
    parser = MultipartParser(
        b"b0undary",
        {
            "on_part_begin": lambda: received.append(bytearray()),
            "on_part_data": lambda data, start, end: received[-1].extend(data[start:end]),
        },
    )
    parser.write(body)
    parser.finalize()
    assert [bytes(each) for each in received] == contents


@pytest.mark.parametrize("name", ['a".pdf', "a\r\nX: 1", "", "ä.pdf", "a b", "a\x00"])
def test_a_name_that_could_break_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not fit"):
        part(name, b"")


def test_a_type_that_could_break_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="media type"):
        part("a", b"", "text/plain\r\nX: 1")
