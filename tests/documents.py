"""A folder of small real files: one or more of each extension that the platform supports, and some that it does not."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from email.message import EmailMessage

from local.stack import ROOT

SUPPORTED_TWICE = ("Scan 1.PDF", "report.final.docx", "data-2026.csv", "Übersicht.xlsx", "a b+c.html", "mail (1).eml")
NOT_SUPPORTED = {
    "clip.mp4": b"\x00\x00\x00\x18ftypmp42",
    "archive.zip": b"PK\x05\x06" + bytes(18),
    "settings.json": b"{}",
    "README": b"no extension",
    "tool.exe": b"MZ",
}
NO_DOCUMENTS = {"folder/": b"", "other_$folder$": b"", "empty.pdf": b""}


def folder(extensions: list[str]) -> dict[str, bytes]:
    """Names and contents of documents, one of each extension and the second ones."""
    names = [f"document.{each}" for each in extensions] + list(SUPPORTED_TWICE)
    return {name: content(name.rpartition(".")[2].lower()) + _mark(name) for name in names}


def content(extension: str) -> bytes:
    """A file of this kind, as other programs would recognise it."""
    for extensions, make in _MAKERS.items():
        if extension in extensions.split():
            return make(extension)
    return f"A document of the kind {extension}.\n".encode()


def _mark(name: str) -> bytes:
    """Behind the end of a file, which every reader ignores: no two are the same."""
    return f"\n{zlib.crc32(name.encode()):08x}\n".encode()


def _zipped(extension: str) -> bytes:
    """The formats of offices and e-books are archives with a list of their parts."""
    parts = {
        "mimetype": f"application/{extension}",
        "[Content_Types].xml": "<Types/>",
        "META-INF/container.xml": "<c/>",
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return written.getvalue()


def _compound(_: str) -> bytes:
    """The older formats of offices: a file system of one sector, with a root and nothing in it."""
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6)
    head += bytes(10) + struct.pack("<IIIIIIII", 1, 1, 0, 0x1000, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    table = struct.pack("<II", 0xFFFFFFFD, 0xFFFFFFFE).ljust(512, b"\xff")
    name = "Root Entry".encode("utf-16-le")
    root = name.ljust(64, b"\0") + struct.pack("<HBB", len(name) + 2, 5, 1) + b"\xff" * 12
    return (head + struct.pack("<I", 0)).ljust(512, b"\xff") + table + root.ljust(512, b"\0")


def _png(_: str) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def _bmp(_: str) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 58, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)
        + bytes(4)
    )


def _tiff(_: str) -> bytes:
    tags = [(256, 4, 1), (257, 4, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 1), (279, 4, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 10) + bytes(2) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _jpeg(_: str) -> bytes:
    return (
        bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb0043000101010101010101") + b"\1" * 57 + b"\xff\xd9"
    )


def _heic(_: str) -> bytes:
    return struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"


def _mail(_: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.com", "b@example.com", "Übersicht"
    mail.set_content("See the table.")
    mail.add_attachment(b"a;b\r\n1;2\r\n", maintype="text", subtype="csv", filename="a.csv")
    return bytes(mail)


def _text(extension: str) -> bytes:
    return {
        "csv": "Name;Größe\r\nä;1\r\n".encode("cp1252"),  # as Windows writes it
        "tsv": b"a\tb\n1\t2\n",
        "html": b"<!doctype html><title>a</title><p>b",
        "htm": b"<html><body>b</body></html>",
        "xml": b'<?xml version="1.0"?><a/>',
        "fods": b'<?xml version="1.0"?><office:document xmlns:office="o"/>',
        "md": b"# a\n\nb\n",
        "rst": b"a\n=\n\nb\n",
        "org": b"* a\n** b\n",
        "rtf": rb"{\rtf1\ansi a}",
        "dbf": struct.pack("<B3sIHH20x", 3, b"\x7e\x0b\x19", 0, 33, 1) + b"\r\x1a",
        "p7s": bytes.fromhex("300b06092a864886f70d010702"),
    }[extension]


_MAKERS: dict[str, Callable[[str], bytes]] = {
    "pdf": lambda _: (ROOT / "events/documents/sample.pdf").read_bytes(),
    "docx dotm xlsx pptx pptm odt epub": _zipped,
    "doc dot xls ppt pot msg et": _compound,
    "zabw": lambda _: gzip.compress(b"<abiword/>", mtime=0),
    "png": _png,
    "bmp": _bmp,
    "tiff": _tiff,
    "jpg jpeg": _jpeg,
    "heic": _heic,
    "eml": _mail,
    "csv tsv html htm xml fods md rst org rtf dbf p7s": _text,
}
