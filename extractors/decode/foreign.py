"""What a file is if it is not a video, by its first bytes, for messages that say what to do."""

from __future__ import annotations

from pathlib import Path

# First bytes (as in file(1) and https://en.wikipedia.org/wiki/List_of_file_signatures) and what they mean.
_SIGNS = (
    (b"%PDF-", "it is a PDF; give the video itself"),
    (b"PK\3\4", "it is a ZIP archive; unpack it"),
    (b"Rar!\x1a\x07", "it is a RAR archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive; unpack it"),
    (b"\x1f\x8b", "it is a gzip archive; unpack it"),
    (b"#EXTM3U", "it is a playlist, which leads to other files; download the video first (yt-dlp)"),
    (b"version https://git-lfs", "it is Git LFS's pointer to the file; get the file itself (git lfs pull)"),
)
# Brands of ISO base media files that are pictures (HEIF, ISO/IEC 23008-12; AVIF, https://aomediacodec.github.io/av1-avif).
STILL_BRANDS = frozenset({"avif", "heic", "heix", "heim", "heis", "mif1"})
_HEAD = 4096


def foreign(path: Path) -> str | None:
    """What a file is and what to do, or None if its first bytes do not tell."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    for sign, meaning in _SIGNS:
        if head.startswith(sign):
            return meaning
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, perhaps an error that was saved in its place; download the video again"
    if head[4:8] == b"ftyp" and head[8:12].decode("latin-1") in STILL_BRANDS:
        return "it is a picture; give a video"
    if not head.strip(b"\0"):
        return "it begins with nothing but zeros; copy or download it again"
    return None


def picture(path: Path, form: str, brand: str) -> str | None:
    """The problem with a file that FFmpeg opens as a single picture; None for a video.

    `form`: FFmpeg's name of its format. `brand`: the major brand of an ISO base media file.
    """
    if form == "webp_pipe" and _moves(path):
        return "is an animated WebP, of which FFmpeg reads no picture; convert it to GIF or MP4"
    if form == "image2" or (form.endswith("_pipe") and form != "gif_pipe") or brand.strip() in STILL_BRANDS:
        return "is a picture; give a video"
    return None


def _moves(path: Path) -> bool:
    """Whether a WebP is animated, by flag A of its chunk VP8X (RFC 9649, section 2.7.1)."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 0x02)
