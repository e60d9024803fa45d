"""Properties that hold for any input: parsers fail in no way of their own, transfers end whole or not."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_clients import impatient_client
from scripted_registry import Reply, Seen, scripted_registry

from lading.modelfile.errors import LadingError
from lading.oci.digest import Digest
from lading.oci.reference import Reference
from lading.oci.registry.challenge import Challenge, parse_challenges
from lading.oci.registry.download import download_file
from lading.oci.registry.origin import BadUrl, Origin, is_internal, resolve
from lading.oci.registry.retry import delay_s, parse_retry_after
from lading.oci.registry.settings import RetryPolicy
from lading.server.registry.byte_range import ByteRange, Unsatisfiable, parse_range

TOKEN = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
CHALLENGE = st.builds(Challenge, TOKEN, st.dictionaries(TOKEN, VALUE, max_size=4))


def written(challenge: Challenge) -> str:
    """A challenge as a header has it."""
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in challenge.parameters.items()}
    return f"{challenge.scheme} " + ", ".join(f'{key}="{value}"' for key, value in escaped.items())


@given(st.lists(CHALLENGE, max_size=4))
def test_challenges_are_read_as_they_were_written(challenges: list[Challenge]) -> None:
    assert list(parse_challenges([", ".join(map(written, challenges))])) == challenges


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_breaks_the_parser(headers: list[str]) -> None:
    parse_challenges(headers)


@given(st.text(max_size=60), st.text(max_size=60))
def test_urls_are_safe_or_refused(base: str, location: str) -> None:
    for url in (base, location, f"https://{location}", f"http://x/{location}"):
        try:
            Origin.of(url)
            resolved = resolve(url, location)
        except BadUrl:
            continue
        assert Origin.of(resolved).scheme in {"http", "https"}
        assert "@" not in resolved.split("/")[2]
        assert resolved.isascii()


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_is_private_to_python_is_internal(address: object) -> None:
    if not address.is_global:  # type: ignore[attr-defined]  # an IP address
        assert (
            is_internal(str(address))
            or getattr(address, "ipv4_mapped", None)
            or str(address)[:5]
            in (
                "2002:",
                "64:ff",
            )
        )


@given(st.text(max_size=40), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded(header: str, attempt: int, chance: float) -> None:
    asked = parse_retry_after(header, datetime.now(UTC))
    assert asked is None or asked >= 0
    policy = RetryPolicy()
    assert 0 <= delay_s(policy, attempt, header, lambda: chance) <= policy.retry_after_cap_s
    assert policy.base_s / 2 <= delay_s(policy, attempt, None, lambda: chance) <= policy.cap_s


@given(
    st.one_of(st.text(max_size=30), st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True)),
    st.integers(0, 999),
)
def test_ranges_lie_inside(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except Unsatisfiable:
        return
    assert found is None or (isinstance(found, ByteRange) and 0 <= found.first < found.end <= size)


BLOB = bytes(range(251)) * 400
DIGEST = Digest.of(BLOB)
FAULT = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, len(BLOB))),
    st.tuples(st.just("status"), st.sampled_from([429, 500, 502, 503, 504, 404, 403])),
    st.tuples(st.just("flip"), st.integers(0, len(BLOB) - 1)),
    st.tuples(st.just("whole"), st.just(0)),
    st.tuples(st.just("longer"), st.integers(1, 1000)),
)


def faulty(kind: str, number: int, seen: Seen) -> Reply | None:
    """An answer with this fault, to a request with or without range."""
    first = int(seen.headers["range"][6:-1]) if "range" in seen.headers else 0
    data = BLOB[first:]
    headers = {"Content-Range": f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}"} if first else {}
    status = 206 if first else 200
    if kind == "cut":
        return Reply(status, headers, data[:number], length=len(data), cut=True)
    if kind == "status":
        return Reply(number)
    if kind == "flip":
        at = number % max(1, len(data))
        return Reply(status, headers, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    if kind == "longer":
        return Reply(status, headers, data + b"x" * number, length=None)
    return Reply(200, {}, BLOB)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FAULT, max_size=6))
def test_a_download_is_right_or_not_there(faults: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, scripted_registry() as registry:
        registry.blobs[str(DIGEST)] = BLOB
        for kind, number in reversed(faults):
            registry.on("GET", "blobs", lambda s, k=kind, n=number: faulty(k, n, s), times=1)  # type: ignore[misc]
        path = Path(folder) / "out"
        with impatient_client() as client:
            repository = client.repository(Reference.parse(f"{registry.host}/team/m:v1"))
            try:
                download_file(repository, DIGEST, path)
            except LadingError:
                assert list(Path(folder).iterdir()) == []
            else:
                assert path.read_bytes() == BLOB
                assert list(Path(folder).iterdir()) == [path]
