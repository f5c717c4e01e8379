"""What holds no rows is answered with what to do."""

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers.inputs import read_source, refusal
from thunder_train import ThunderError

ROWS = "write its rows as JSONL, CSV or Parquet"
UNPACK = "unpack it, and name the file with the rows"
KINDS = (
    *("pointer", "page", "page in capitals", "xml", "zip", "xlsx", "docx", "checkpoint", "xls", "pickle", "tar"),
    *("packed tar", "packed twice", "rtf", "pdf"),
)
PAGE = "is a web page, not data; download the file itself; the page may say why it was not given"


def archive(*names: str) -> bytes:
    """A zip archive of empty files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, "")
    return content.getvalue()


def tar() -> bytes:
    """A tar archive of an empty file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        file.addfile(tarfile.TarInfo("rows.jsonl"))
    return content.getvalue()


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet", "in.bin"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            "is a Git LFS pointer, not the file itself; run `git lfs pull`",
        ),
        (b"<!DOCTYPE html>\n<html>", PAGE),
        (b"\n <HTML><head>", PAGE),
        (b"<?xml version='1.0'?>", f"is XML; {ROWS}"),
        (archive("rows.jsonl"), f"is a zip archive; {UNPACK}"),
        (archive("[Content_Types].xml", "xl/workbook.xml"), 'is an Excel file; save it as "CSV UTF-8"'),
        (archive("[Content_Types].xml", "word/document.xml"), "is a Word file; save it as plain text or CSV"),
        (archive("x/data.pkl"), f"is a pickle, which may run any program when it is read; {ROWS}"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 64, 'is an Excel file; save it as "CSV UTF-8"'),
        (pickle.dumps([{"text": "a"}]), f"is a pickle, which may run any program when it is read; {ROWS}"),
        (tar(), f"is a tar archive; {UNPACK}"),
        (gzip.compress(tar()), f"is a tar archive; {UNPACK}"),
        (gzip.compress(gzip.compress(b'{"text": "a"}')), "is packed twice; unpack it once"),
        (b"{\\rtf1\\ansi", "is a rich-text file; save it as plain text"),
        (b"%PDF-1.7", f"is a PDF file; {ROWS}"),
    ],
    ids=KINDS,  # the bytes of an archive hold the time, and all processes of pytest-xdist must give equal names
)
def test_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    """By its bytes: its name says what somebody hoped for."""
    assert f"{name}: {expected}" == refusal(tmp_path, content, path=name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("https://x.org/a.jsonl?b=*", "is a web address, which is not fetched; download the file, and name its path"),
        (
            "https://huggingface.co/datasets/a/b/resolve/main/c.jsonl",
            "is a web address, which is not fetched; download the file, and name its path, "
            'or set repo = "owner/name" and revision',
        ),
        ("s3://bucket/a.jsonl", "is an address of s3, which is not fetched; copy the file here, and name its path"),
        (
            "hf://datasets/a/b",
            'is an address of the Hugging Face hub; set repo = "owner/name" and revision, and path to the files in it',
        ),
        ("file:///a.jsonl", "is an address of a file; write the path alone, without file://"),
        ("~/a.jsonl", "begins with ~, which is not replaced; write the home folder in full"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "folder"])
def test_address_of_another_machine_is_refused(tmp_path: Path, kind: str, path: str, expected: str) -> None:
    """Nothing is fetched in silence; as a pattern an address would match no file."""
    with pytest.raises(ThunderError) as error:
        read_source(tmp_path, kind=kind, path=path)

    assert f"{path}: {expected}" == str(error.value)


def test_text_that_mentions_a_page_is_read(tmp_path: Path) -> None:
    """Only the first bytes count."""
    (tmp_path / "in.csv").write_text("text\n<html>\nPK\x03\x04\n")

    assert ["<html>", "PK\x03\x04"] == [row.target_text for row in read_source(tmp_path, path="in.csv")[0]]
