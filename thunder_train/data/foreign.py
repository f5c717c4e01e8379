"""What people name as a source that holds no rows: archives, spreadsheets, pointers, web pages, addresses.

Input: a source's path, or the first bytes of its file, unpacked.  Output: an error that says what to do.
"""

import re

from thunder_train import ThunderError

AS_ROWS = "write its rows as JSONL, CSV or Parquet"
UNPACK = "unpack it, and name the file with the rows"
EXCEL = ("is an Excel file", 'save it as "CSV UTF-8"')
PICKLE = ("is a pickle, which may run any program when it is read", AS_ROWS)
STARTS = {
    b"version https://git-lfs": ("is a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    b"/annex/objects/": ("is a git-annex pointer, not the file itself", "run `git annex get` for it"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": EXCEL,
    b"{\\rtf": ("is a rich-text file", "save it as plain text"),
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), PICKLE),
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", UNPACK),
    b"Rar!\x1a\x07": ("is a rar archive", UNPACK),
    **dict.fromkeys((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"), ("is packed twice", "unpack it once")),
    b"\x04\x22\x4d\x18": ("is packed with lz4", "unpack it, or pack it with gzip or zstd"),
    b"SQLite format 3\x00": ("is an SQLite database", AS_ROWS),
    b"\x93NUMPY": ("is a NumPy file", AS_ROWS),
    b"\x89HDF": ("is an HDF5 file", AS_ROWS),
    b"Obj\x01": ("is an Avro file", AS_ROWS),
    b"FEA1": ("is a Feather file of version 1", "write it as version 2 or as Parquet"),
    b"%PDF-": ("is a PDF file", AS_ROWS),
    **dict.fromkeys((b"RIFF", b"fLaC", b"OggS", b"ID3\x03"), ("is an audio file", "name the file with the texts")),
}
"""First bytes of a file, unpacked -> (what it is, what to do)."""
PAGE = re.compile(rb"\s*<(!doctype html|html|head|body|!--)", re.IGNORECASE)
XML = re.compile(rb"\s*<\?xml", re.IGNORECASE)
TAR_MARK = slice(257, 262)
IN_ZIP = {
    b"word/": ("is a Word file", "save it as plain text or CSV"),
    b"xl/": EXCEL,
    b"[Content_Types].xml": EXCEL,
    b"opendocument.spreadsheet": ("is a spreadsheet", 'save it as "CSV UTF-8"'),
    b"data.pkl": PICKLE,
}
"""Names in a zip archive -> what it is then, and what to do."""
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})
WINDOWS_MARKS = "‘’“”–—…€«»°·¿¡"
"""What texts in Windows-1252 hold beside letters."""


def refuse(head: bytes, path: str) -> None:
    """Raise ThunderError if a file that begins so holds no rows."""
    reason = _reason(head)
    if reason:
        raise ThunderError(reason[0], where=path, hint=reason[1])


def refuse_address(path: str) -> None:
    """Raise ThunderError if a source's path is no path of this machine."""
    address = ADDRESS.match(path)
    if not address:
        if path.startswith("~"):
            raise ThunderError("begins with ~, which is not replaced", path, "write the home folder in full")
        return
    scheme = address[1].lower()
    if scheme == "file":
        what, hint = "is an address of a file", "write the path alone, without file://"
    elif scheme == "hf":
        hint = 'set repo = "owner/name" and revision, and path to the files in it'
        what = "is an address of the Hugging Face hub"
    elif scheme in ("http", "https"):
        what, hint = "is a web address, which is not fetched", "download the file, and name its path"
        if "huggingface.co/datasets/" in path:
            hint += ', or set repo = "owner/name" and revision'
    else:
        what, hint = f"is an address of {scheme}, which is not fetched", "copy the file here, and name its path"
    raise ThunderError(what, where=path, hint=hint)


def _reason(head: bytes) -> tuple[str, str] | None:
    for start, reason in STARTS.items():
        if head.startswith(start):
            return reason
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return next((reason for mark, reason in IN_ZIP.items() if mark in head), ("is a zip archive", UNPACK))
    if head[TAR_MARK] == b"ustar":
        return "is a tar archive", UNPACK
    if PAGE.match(head):
        return "is a web page, not data", "download the file itself; the page may say why it was not given"
    if XML.match(head):
        return "is XML", AS_ROWS
    if re.match(rb"[\x09\x0a\x0d\x20-\x7e]\x00[\x09\x0a\x0d\x20-\x7e]\x00", head) or re.match(rb"\x00[{\[\"]", head):
        return "is UTF-16 without its mark", "save the file as UTF-8"
    return None


def is_binary(head: bytes) -> bool:
    """Whether bytes are no text: they hold control characters that texts do not, or cannot be UTF-8 or UTF-16."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    if head.translate(None, CONTROLS) != head:
        return True
    try:
        head[:1024].decode()
    except UnicodeDecodeError as error:
        return error.start < min(len(head), 1024) - 4
    return False


def is_windows_text(line: bytes) -> bool:
    """Whether a line that is not UTF-8 reads as Western European text in Windows-1252."""
    try:
        text = line.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return all(letter.isalpha() or letter in WINDOWS_MARKS for letter in text if not letter.isascii())
