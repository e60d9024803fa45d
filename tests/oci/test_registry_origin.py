"""Origins, redirect targets and address classes."""

from __future__ import annotations

import pytest

from lading.oci.registry.origin import BadUrl, Origin, is_internal, resolve


@pytest.mark.parametrize(
    ("url", "expected", "netloc"),
    [
        ("https://Example.COM/v2/", Origin("https", "example.com", 443), "example.com"),
        ("https://example.com:443", Origin("https", "example.com", 443), "example.com"),
        ("http://example.com:443/", Origin("http", "example.com", 443), "example.com:443"),
        ("http://127.0.0.1:5000/v2/", Origin("http", "127.0.0.1", 5000), "127.0.0.1:5000"),
        ("http://[::1]:5000/", Origin("http", "::1", 5000), "[::1]:5000"),
        ("https://example.com./", Origin("https", "example.com", 443), "example.com"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: Origin, netloc: str) -> None:
    assert Origin.of(url) == expected
    assert expected.netloc == netloc


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "//example.com/",
        "/v2/",
        "",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
        "https://example.com\\@evil.example/",
        "https://exämple.com/",
        "https://[::1/",
        "https://-example.com/",
        "https://" + "a" * 20_000,
        "gopher://example.com/",
    ],
)
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        Origin.of(url)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/x?y=1", "https://reg.example/v2/x?y=1"),
        ("z", "https://reg.example/v2/z"),
        ("https://other.example/x", "https://other.example/x"),
        ("//other.example/x", "https://other.example/x"),
        ("/x#fragment", "https://reg.example/x"),
        ("?digest=x", "https://reg.example/v2/m?digest=x"),
    ],
)
def test_locations_are_resolved(location: str, expected: str) -> None:
    assert resolve("https://reg.example/v2/m", location) == expected


def test_a_bad_location_is_refused() -> None:
    for location in ("javascript:alert(1)", "http://a:b@c/", "/x\ny", "http://[", "/" + "x" * 20_000):
        with pytest.raises(BadUrl):
            resolve("https://reg.example/v2/m", location)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:a00:1::", "2001:db8::1", "not an address", ""),
    ],
)
def test_internal_addresses_are_known(address: str) -> None:
    assert is_internal(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_known(address: str) -> None:
    assert not is_internal(address)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:5000", True),
        ("http://x.localhost", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:1", True),
        ("http://[::ffff:127.0.0.1]/", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_loopback_is_what_can_be_nothing_else(url: str, loopback: bool) -> None:
    assert Origin.of(url).is_loopback is loopback
