"""The signature policy: read strictly, the right rule chosen, and nothing fetched that it does not allow."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_server import INSTALLED, WHY_NOT, RunningRegistry, running_registry
from store_models import put_model

from lading.modelfile.errors import LadingError
from lading.oci.digest import Digest
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.settings import RegistrySettings
from lading.oci.signing.attachments import StoreAttachments
from lading.oci.signing.errors import BadKey, BadPolicy, NotSigned, SignatureInvalid
from lading.oci.signing.key import SigningKey
from lading.oci.signing.policy import Mode, Rule, SignaturePolicy, read_policy
from lading.oci.signing.signature import sign, verify
from lading.oci.store import Store
from lading.oci.transfer import pull, push

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
FILES = {"release.pub": KEY.public.to_pem(), "broken.pub": b"broken"}


def read(text: str) -> SignaturePolicy:
    def read_file(name: str) -> bytes:
        if name not in FILES:
            raise BadKey(f"there is no {name}")
        return FILES[name]

    return read_policy(text.encode(), "policy.toml", read_file)


GOOD = """
[[rule]]
prefix = "*"
signatures = "warn"
keys = ["release.pub"]

[[rule]]
prefix = "registry.test/Team/"
signatures = "require"
keys = ["release.pub"]
identity = "repository"

[[rule]]
prefix = "registry.test/team/scratch"
signatures = "off"
"""


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("registry.test/team/model:v1", Mode.REQUIRE),
        ("registry.test/TEAM/model:v1", Mode.REQUIRE),
        ("registry.test/team/sub/model:v1", Mode.REQUIRE),
        ("registry.test/team/scratch:v1", Mode.OFF),
        ("registry.test/team/scratch/x:v1", Mode.OFF),
        ("registry.test/team/scratchpad:v1", Mode.REQUIRE),
        ("registry.test/teamwork/model:v1", Mode.WARN),
        ("registry.test:5000/team/model:v1", Mode.WARN),
        ("evil.test/registry.test/team/model:v1", Mode.WARN),
        ("llama3.2", Mode.WARN),
    ],
)
def test_the_longest_prefix_of_whole_parts_decides(name: str, mode: Mode) -> None:
    policy = read(GOOD)
    assert policy.rule_for(Reference.parse(name)).mode is mode
    assert pickle.loads(pickle.dumps(policy)) == policy  # it reaches the server's processes


def test_no_rule_means_no_signature() -> None:
    for policy in (read(""), SignaturePolicy()):
        assert policy.rule_for(Reference.parse("llama3.2")).mode is Mode.OFF


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[rule]", "not TOML"),
        ("\0", "not TOML"),
        ("rules = []", "nothing but"),
        ("rule = 7", "nothing but"),
        ("rule = [7]", "rule 1: expected a table"),
        ("[[rule]]\nsignatures='off'", "expected a prefix"),
        ("[[rule]]\nprefix='/'\nsignatures='off'", "expected a prefix"),
        ("[[rule]]\nprefix='x'", "require, warn or off"),
        ("[[rule]]\nprefix='x'\nsignatures='yes'", "require, warn or off"),
        ("[[rule]]\nprefix='x'\nsignatures=true", "require, warn or off"),
        ("[[rule]]\nprefix='x'\nsignature='require'", "'signature' is not one of"),
        ("[[rule]]\nprefix='x'\nsignatures='require'", "needs keys"),
        ("[[rule]]\nprefix='x'\nsignatures='warn'\nkeys=[]", "needs keys"),
        ("[[rule]]\nprefix='x'\nsignatures='require'\nkeys='release.pub'", "a list of files"),
        ("[[rule]]\nprefix='x'\nsignatures='require'\nkeys=['none.pub']", "there is no none.pub"),
        ("[[rule]]\nprefix='x'\nsignatures='require'\nkeys=['broken.pub']", "no public key"),
        ("[[rule]]\nprefix='x'\nsignatures='off'\nidentity='same'", "any or repository"),
        ("[[rule]]\nprefix='x'\nsignatures='off'\n[[rule]]\nprefix='X'\nsignatures='off'", "two rules"),
        ("#" * (1 << 21), "at most"),
    ],
)  # fmt: skip
def test_a_policy_that_is_not_understood_is_no_policy(text: str, reason: str) -> None:
    with pytest.raises(BadPolicy, match=reason) as caught:
        read(text)
    assert caught.value.where.startswith("policy.toml")


# Enforced on pull


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path / "registry") as running:
        yield running


def publish(store: Store, name: str, *keys: SigningKey, identity: str | None = None) -> Digest:
    reference = Reference.parse(name)
    subject = put_model(store, name, b"weights of " + name.encode()).descriptor
    for key in keys:
        sign(StoreAttachments(store, reference), subject, key, identity=identity or reference.name)
    with RegistryClient() as client:
        push(store, client, reference)
    return subject.digest


def fetch(store: Store, name: str, mode: Mode, *, match: bool = False) -> list[str]:
    """Pulls under a policy; what the progress said."""
    prefix = Reference.parse(name).registry
    rule = Rule(prefix=prefix, mode=mode, keys=(KEY.public,), match_repository=match)
    said: list[str] = []
    with RegistryClient(RegistrySettings(signatures=SignaturePolicy((rule,)))) as client:
        pull(store, client, Reference.parse(name), progress=lambda step: said.append(step.status))
    return said


def test_a_signed_model_comes_with_its_signatures(
    tmp_path: Path, store: Store, registry: RunningRegistry
) -> None:
    name = f"{registry.host}/team/model:v1"
    digest = publish(store, name, OTHER, KEY)
    user = Store.open(tmp_path / "user")
    assert "verifying signature" in fetch(user, name, Mode.REQUIRE, match=True)
    found = verify(StoreAttachments(user, Reference.parse(name)), digest, [KEY.public])
    assert len(found) == 2
    assert "verifying signature" in fetch(user, f"{registry.host}/team/model@{digest}", Mode.REQUIRE)


@pytest.mark.parametrize(
    ("keys", "match", "identity", "error"),
    [
        ([], False, None, NotSigned),
        ([OTHER], False, None, SignatureInvalid),
        ([KEY], True, "elsewhere.test/team/model", SignatureInvalid),
    ],
    ids=["unsigned", "another-key", "another-repository"],
)
def test_what_is_not_signed_is_not_even_fetched(
    tmp_path: Path,
    store: Store,
    registry: RunningRegistry,
    keys: list[SigningKey],
    match: bool,
    identity: str | None,
    error: type[LadingError],
) -> None:
    name = f"{registry.host}/team/model:v1"
    digest = publish(store, name, *keys, identity=identity)
    user = Store.open(tmp_path / "user")
    put_model(user, name, b"what was there before")
    before = user.tags()
    with pytest.raises(error) as caught:
        fetch(user, name, Mode.REQUIRE, match=match)
    assert caught.value.hint is not None and "policy requires" in caught.value.hint
    assert user.tags() == before
    assert not user.has(Digest.of(b"weights of " + name.encode()))
    said = fetch(user, name, Mode.WARN, match=match)
    assert any(step.startswith("warning: verifying ") for step in said)
    assert user.find(Reference.parse(name)).descriptor.digest == digest


def test_a_moved_tag_needs_a_signature_of_its_own(
    tmp_path: Path, store: Store, registry: RunningRegistry
) -> None:
    """The attack: the registry gives another model under the name of a signed one."""
    name = f"{registry.host}/team/model:v1"
    publish(store, name, KEY)
    user = Store.open(tmp_path / "user")
    fetch(user, name, Mode.REQUIRE)
    put_model(store, name, b"something else")
    with RegistryClient() as client:
        push(store, client, Reference.parse(name))
    with pytest.raises(NotSigned):
        fetch(user, name, Mode.REQUIRE)


def test_off_asks_for_nothing(tmp_path: Path, store: Store, registry: RunningRegistry) -> None:
    name = f"{registry.host}/team/model:v1"
    publish(store, name, KEY)
    user = Store.open(tmp_path / "user")
    assert not [step for step in fetch(user, name, Mode.OFF) if "signature" in step]
    assert len(user.tags()) == 1
