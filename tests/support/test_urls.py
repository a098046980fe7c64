"""Addresses: what is one, what is refused, and what never appears."""

from pathlib import Path

import pytest

from support import urls
from support.errors import UsageError
from support.paths import call, called, is_url


def test_what_an_address_is() -> None:
    assert all(map(is_url, ("s3://b/x", "GS://b/x", "memory://x", "file:///x")))
    assert not any(map(is_url, ("http://x/y", "b/x.mp4", "s3:/b/x", "C://x", Path("s3://b/x"), "")))


def test_addresses_keep_one_form() -> None:
    assert urls.address("S3://bucket/day 1//a.mp4") == "s3://bucket/day 1//a.mp4"
    assert urls.address("memory:///b/x/") == urls.address("memory://b/x") == "memory://b/x"
    assert urls.address("s3://bucket/me@home.mp4") == "s3://bucket/me@home.mp4"
    assert urls.address("s3://bucket/a?.mp4") == "s3://bucket/a?.mp4"
    assert urls.split("s3://bucket/out/match.json") == ("s3://bucket/out", "match.json")
    for wrong in ("s3://", "s3:///x", "memory:///"):
        with pytest.raises(UsageError, match="names no bucket"):
            urls.address(wrong)
    with pytest.raises(UsageError, match="is a bucket"):
        urls.split("s3://match.json")


def test_no_name_leads_out_of_a_folder() -> None:
    assert urls.virtual("s3://bucket/a/../../../../etc/x") == Path("/etc/x")
    assert urls.virtual("s3://bucket/day/a.mp4") == Path("/s3:/bucket/day/a.mp4")


def test_files_by_address(tmp_path: Path) -> None:
    plain = tmp_path / "a%20b.mp4"
    plain.touch()
    assert urls.local_file(f"file://{plain}") == plain
    assert urls.local_file(f"file://localhost{tmp_path}/c%20d.mp4") == tmp_path / "c d.mp4"
    with pytest.raises(UsageError, match="no file of this machine"):
        urls.local_file("file://server/share/x.mp4")


SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzz"


@pytest.mark.parametrize(
    "given",
    [
        f"s3://AKIAIOSFODNN7ZZZZZZZ:{SECRET}@bucket/a.mp4",
        f"s3://user:{SECRET.replace('/', '')}@bucket/a.mp4",
        f"s3://bucket/a.mp4?X-Amz-Date=1&X-Amz-Signature={SECRET}",
        f"gs://bucket/a.mp4?access_token={SECRET}",
        f"s3://bucket/a.mp4?AWSAccessKeyId=AKIAIOSFODNN7ZZZZZZZ&Signature={SECRET}",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(UsageError) as refused:
        urls.address(given)
    said = str(refused.value)
    assert "leave the credentials out" in said and "AKIA" not in said
    assert not any(part in said for part in (SECRET, *SECRET.split("/"), SECRET.replace("/", "")))


@pytest.mark.parametrize(
    "text",
    [
        "GET https://b.s3.amazonaws.com/x?X-Amz-Credential={}&X-Amz-Signature={} 403",
        "S3FileSystem(key='{}', secret='{}')",
        "{{'aws_secret_access_key': '{}'}}",
        "Authorization: Bearer {}",
        "headers: Authorization=AWS4-HMAC-SHA256 Credential={}/20260101/eu, Signature={}",
        "session_token: {}",
        "password={}",
        "DefaultEndpointsProtocol=https;AccountKey={};x",
    ],
)
def test_credentials_in_the_texts_of_libraries(text: str) -> None:
    secret = SECRET.replace("/", "")
    shown = urls.redacted(text.format(secret, secret))
    assert secret not in shown and "…" in shown


def test_shapes_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_STORE_SECRET", "plain-words-here")
    text = "the id AKIAIOSFODNN7ZZZZZZZ, plain-words-here, ya29.a0Af_xyz, eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.abc"
    assert urls.redacted(text) == "the id …, …, …, …"
    assert urls.redacted("s3://bucket/monkey=1/a.mp4: Key: day1/a.mp4") == "s3://bucket/monkey=1/a.mp4: Key: day1/a.mp4"


def test_long_texts_take_no_time() -> None:
    """Patterns that backtrack would take hours for these."""
    for text in (
        "a" * 50_000,
        "a_" * 50_000,
        "token" * 10_000,
        "s3://" + "a" * 50_000,
        "x:" * 50_000,
        "a://:" * 10_000,
    ):
        urls.redacted(text)


def test_local_copies_have_the_names_of_their_addresses(tmp_path: Path) -> None:
    call(tmp_path / "copy.mp4", "s3://bucket/a.mp4")
    assert called(f"{tmp_path}/copy.mp4: damaged") == "s3://bucket/a.mp4: damaged"
