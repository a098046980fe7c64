"""What people give in place of a video: each is refused with its true cause and what to do."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import coded, encode
from PIL import Image

from extractors.config import FeatureConfig, Stretch
from extractors.decode.container import open_video
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError
from pipeline.run.videos import find_videos
from support.errors import UsageError


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("match.mp4", bytes(5000))


def pictures(path: Path, form: str, count: int = 1) -> None:
    first, *rest = [Image.fromarray(coded(k)) for k in range(count)]
    first.save(path, form, **({"save_all": True, "append_images": rest, "duration": 40} if rest else {}))


PICTURE = r"is a picture; give a video\."
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a.jpg": (lambda p: pictures(p, "JPEG"), PICTURE),
    "a.png": (lambda p: pictures(p, "PNG"), PICTURE),
    "a.bmp": (lambda p: pictures(p, "BMP"), PICTURE),
    "a.tif": (lambda p: pictures(p, "TIFF"), PICTURE),
    "a.webp": (lambda p: pictures(p, "WEBP"), PICTURE),
    "named.mp4": (lambda p: pictures(p, "JPEG"), PICTURE),
    "a.heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(900)), "it is a picture"),
    "moving.webp": (lambda p: pictures(p, "WEBP", 5), "is an animated WebP, .* convert it to GIF or MP4"),
    "a.pdf": (lambda p: p.write_bytes(b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n"), "it is a PDF; give the video itself"),
    "a.zip": (zipped, "it is a ZIP archive; unpack it"),
    "b.mp4": (zipped, "it is a ZIP archive; unpack it"),
    "c.mp4": (lambda p: p.write_text("<!DOCTYPE html><title>Sign in</title>"), "it is a web page, perhaps an error"),
    "d.mp4": (lambda p: p.write_text("\n <html><body>404</body></html>"), "it is a web page, perhaps an error"),
    "a.m3u8": (lambda p: p.write_text("#EXTM3U\n#EXTINF:1,\nx.ts\n"), r"it is a playlist, .*\(yt-dlp\)"),
    "e.mp4": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "it is Git LFS's pointer to the file",
    ),
    "zeros.mp4": (lambda p: p.write_bytes(bytes(90_000)), "it begins with nothing but zeros; copy or download it"),
    "a.srt": (
        lambda p: p.write_text("1\n00:00:00,000 --> 00:00:01,000\nhi\n"),
        "holds no video stream, only subtitles",
    ),
    "a.txt": (lambda p: p.write_text("hello\n" * 99), r"not a video that FFmpeg can open \("),
}


@pytest.mark.parametrize("name", FILES)
def test_each_is_refused_with_its_cause(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make, said = FILES[name]
    make(path)
    with pytest.raises(VideoError, match=said) as caught, open_video(path):
        pass
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).endswith(".")


@pytest.mark.parametrize(("name", "form", "count"), [("a.gif", "GIF", 20), ("a.png", "PNG", 20), ("one.gif", "GIF", 1)])
def test_moving_pictures_are_videos(tmp_path: Path, name: str, form: str, count: int) -> None:
    pictures(tmp_path / name, form, count)
    with Frames(tmp_path / name) as frames:
        seen = [k for k, _ in frames.grid()]
    assert len(seen) == pytest.approx(count, abs=2)


def test_motion_jpeg_is_a_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [coded(k) for k in range(20)], codec="mjpeg")
    with Frames(path) as frames:
        assert len(list(frames.grid())) == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "https://youtu.be/abc",
            r"https://youtu\.be/abc: jcdnet reads files: download it first \(yt-dlp https://youtu",
        ),
        ("HTTP://x.org/a.mp4", r"download it first \(yt-dlp HTTP://x\.org/a\.mp4\)\."),
        ("www.youtube.com/watch?v=x", r"jcdnet reads files: download it first \(yt-dlp"),
        ("s3://key:secret@bucket/a.mp4", r"s3://…@bucket/a\.mp4: leave the credentials out of the address"),
        ("https://x/a.mp4?X-Amz-Signature=abc", r"X-Amz-Signature=…: jcdnet reads files: download it first"),
        ("rtsp://camera/1", r"rtsp://camera/1: jcdnet reads files: download it first\."),
        ("file://server/a.mp4", r"file://server/a\.mp4: names no file of this machine"),
        ("", "a video's name is empty"),
        (" ", "a video's name is empty"),
    ],
)
def test_addresses_are_no_files(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_videos([given])


def test_names_that_only_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("https:").mkdir()
    Path("https:/a.mp4").write_bytes(b"x")
    assert [job.video for job in find_videos(["https://a.mp4"])] == [Path("https:/a.mp4")]
    Path(r"C:\videos\a.mp4").write_bytes(b"x")
    assert [job.video for job in find_videos([r"C:\videos\a.mp4"])] == [Path(r"C:\videos\a.mp4")]


def test_links_in_a_circle_are_that_videos_fault(tmp_path: Path, jcdnet: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "a.mp4").symlink_to("a.mp4")
    (tmp_path / "b.mp4").symlink_to("/nowhere/b.mp4")
    for name, cause in (("a.mp4", "cannot be read (Too many levels of symbolic links)"), ("b.mp4", "no such file")):
        code, _, said = jcdnet("run", tmp_path / name, "--dry-run")
        assert code == 3
        assert f"error: {tmp_path / name}: {cause}" in said


def test_a_start_after_the_end(tmp_path: Path) -> None:
    from extractors.snippets import nothing_there

    video = encode(tmp_path / "a.mp4", [coded(k) for k in range(75)])
    with Decoder().open(video, FeatureConfig(short_side=48, crop=32), Stretch(5.0)) as (clip, frames):
        assert list(frames) == []
    assert nothing_there(video, Stretch(5.0), clip.end) == (
        f"{video}: nothing after 5 s; the video ends at 3.00 s, give an earlier --start."
    )
    assert "nothing between 5 s and 9 s; the video ends at 3.00 s" in nothing_there(video, Stretch(5.0, 9.0), clip.end)
