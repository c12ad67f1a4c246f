"""The type and the extension of every part that is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_trigger.domain.document import DocumentKey, upload_name
from workflow_trigger.domain.matching import mentions
from workflow_trigger.domain.media_types import SUPPORTED, encoded_as, extension_of, is_media_type, media_type

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize("declared", [None, "", "binary/octet-stream", "application/octet-stream", "application/zip"])
@pytest.mark.parametrize("extension", sorted(SUPPORTED))
def test_extension_tells_the_type_where_nothing_specific_is_declared(extension: str, declared: str | None) -> None:
    """Case 27, for every extension that the vendor supports, in any case."""
    assert media_type(declared, f"in/a.{extension}") == SUPPORTED[extension]
    assert media_type(declared, f"in/A.{extension.upper()}") == SUPPORTED[extension]
    assert is_media_type(SUPPORTED[extension])


@pytest.mark.parametrize(
    ("extension", "kind"),
    [
        ("docx", WORD),
        ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        ("msg", "application/vnd.ms-outlook"),
        ("epub", "application/epub+zip"),
        ("odt", "application/vnd.oasis.opendocument.text"),
        ("org", "text/org"),
        ("csv", "text/csv"),
        ("tsv", "text/tab-separated-values"),
        ("md", "text/markdown"),
        ("rst", "text/x-rst"),
        ("eml", "message/rfc822"),
        ("pdf", "application/pdf"),
    ],
)
def test_types_are_those_that_are_registered(extension: str, kind: str) -> None:
    assert SUPPORTED[extension] == kind


@pytest.mark.parametrize(
    ("declared", "key", "chosen"),
    [
        ("application/vnd.ms-excel", "data.csv", "text/csv"),  # case 28: a browser on Windows
        ("application/pdf", "a.txt", "text/plain"),
        ("application/zip", "a.docx", WORD),
        ("application/x-www-form-urlencoded", "a.pdf", "application/pdf"),
        ("text/plain", "a.md", "text/markdown"),
        ("text/markdown", "a.txt", "text/markdown"),
        ("text/xml", "a.xml", "text/xml"),
        ("image/png", "a.jpg", "image/png"),
        ("image/jpg", "a.jpg", "image/jpeg"),  # names that the platform may not know
        ("image/pjpeg", "a.jpeg", "image/jpeg"),
        ("image/x-ms-bmp", "a.bmp", "image/bmp"),
        ("image/heif", "a.heic", "image/heic"),
        ("image/svg+xml", "a.png", "image/png"),
        ("text/x-markdown", "a.md", "text/markdown"),
        ("application/x-pdf", "a.pdf", "application/pdf"),
        ("text/html", "a.csv", "text/csv"),
        ("text/html", "a.md", "text/markdown"),
        ("text/x-csv", "a.csv", "text/csv"),
        ("text/css", "a.txt", "text/plain"),
        ("text/plain\r\nX: 1", "a.pdf", "application/pdf"),
        ("text/html; charset=utf-8", "a", "text/html"),
        ("application/pdf", "a", "application/pdf"),
        ("application/pdf", "a.unknown", "application/pdf"),
        ("nonsense", "a", "application/octet-stream"),
        (None, "a", "application/octet-stream"),
        (None, "a.gif", "image/gif"),  # not of the vendor's list: as Python's own table has it
        (None, "a.webp", "image/webp"),
        ("image/x-own", "a.gif", "image/x-own"),
        (None, "report.pdf.gz", "application/gzip"),  # case 30
        ("application/pdf", "report.pdf.gz", "application/gzip"),
        ("application/pdf", "report.pdf.bz2", "application/x-bzip2"),  # as Python's mimetypes declares it
        ("text/csv", "report.csv.xz", "application/x-xz"),
        ("application/pdf", "report.pdf.Z", "application/octet-stream"),
        ("application/pdf", "report.pdf.br", "application/octet-stream"),
    ],
)
def test_declared_type_counts_where_it_says_more(declared: str | None, key: str, chosen: str) -> None:
    assert media_type(declared, key) == chosen


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        ("a.pdf ", "pdf"),  # case 31
        ("a.pdf?x=1", "pdf"),
        ("in/a.PDF?path=/b.txt/c", "pdf"),
        ("a.pdf;1", "pdf"),
        ("a.pdf~", "pdf"),
        ("a.pdf.2", "pdf"),
        ("a.pdf_v3", "pdf"),
        ("a.docx (1)", "docx"),
        ("a.pdf.bak", "pdf"),
        ("a.pdf\n", "pdf"),
        ("a.PDF.BAK", "pdf"),
        ("a.docx_V2", "docx"),
        ("a.pdf_20240101", "pdf"),
        ("a.pdf.2024-01-31", "pdf"),
        ("a.pdf-20240131093000", "pdf"),
        ("a.pdf%20", "pdf"),
        ("a.pdf%20 %20", "pdf"),
        ("q2.pdf?name=b.txt", "pdf"),
        ("what?.txt", "txt"),
        ("What is a.txt?.pdf", "pdf"),
        ("read me.md?.docx", "docx"),
        ("a.PDF?X-Amz-Signature=ab%2Fc.d/e.gz", "pdf"),
        ("q.pdf?x=1&y=2/3", "pdf"),
        ("a.pdf%3Fx=1", "pdf"),
        ("a.pdf.20240101T101500", "pdf"),
        ("a.pdf-2024-01-01T101500Z", "pdf"),
        ("a.pdf - Copy", "pdf"),
        ("a.pdf (copy)", "pdf"),
        ("a.pdf\u200b", "pdf"),
        ("a.pdf.tmp", "pdf"),
        ("reports?year=2024/file.pdf", "pdf"),  # no query: nothing before it has an extension
        ("q?a=1/report.docx", "docx"),
        ("What is x? y=2.pdf", "pdf"),
        ("a%3Fb=c/d.pdf", "pdf"),
        ("v1.txt?dir/a.pdf", "pdf"),
        ("report.pdf.gz", "gz"),
        ("v1.2", "2"),
        ("a.b/c", ""),
        (".pdf", ""),
        ("in/.pdf", ""),
        ("a.", ""),
        ("a", ""),
    ],
)
def test_extension_is_found_under_decoration(key: str, extension: str) -> None:
    assert extension_of(key) == extension
    name = upload_name(DocumentKey(f"s3://bucket/{key}", "v"), "attempt")
    assert name.rpartition(".")[2] == extension if extension else "." not in name


@given(st.text(min_size=1, max_size=200))
def test_any_key_has_a_type_and_a_usable_extension(key: str) -> None:
    assert is_media_type(media_type(None, key))
    assert extension_of(key).isalnum() or not extension_of(key)
    assert extension_of(key) == extension_of(key).lower()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("aws-chunked", None),
        ("gzip", ("application/gzip", ".gz")),
        ("GZIP,aws-chunked", ("application/gzip", ".gz")),
        ("zstd", ("application/zstd", ".zst")),
        ("br", ("application/octet-stream", ".encoded")),
        ("utf-8", None),  # no codings: uploaders write them next to plain bytes
        ("base64", None),
        ("binary", None),
        ("utf-8,gzip", ("application/gzip", ".gz")),
    ],
)
def test_encoded_object_is_called_what_it_is(encoding: str | None, expected: tuple[str, str] | None) -> None:
    assert encoded_as(encoding) == expected


def test_stem_is_that_of_the_file_and_not_of_a_query() -> None:
    assert upload_name(DocumentKey("s3://b/in/q2.pdf?x=1&y=2/3", "v"), "attempt").startswith("q2-")
    assert upload_name(DocumentKey("s3://bucket/?x=1", "v"), "attempt").startswith("x-1-")


def test_name_with_two_extensions_still_carries_its_token() -> None:
    name = upload_name(DocumentKey("s3://b/a.pdf", "v"), "attempt")
    assert mentions([f"{name.removesuffix('.pdf')}-0a1b2c3d.gz"], [f"{name}.gz"])
