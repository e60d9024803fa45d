"""Which models must be signed, and by whom.

    [[rule]]
    prefix = "registry.example.com/team"     # whole parts of names; the longest that fits decides
    signatures = "require"                   # or "warn", or "off"
    keys = ["release.pub"]                   # one good signature by one of them is enough
    identity = "repository"                  # the signature must name the model's repository; default "any"

A name that no rule fits needs no signature; a rule with the prefix ``*`` fits every name. Anything in a
policy that is not understood makes the whole policy unusable: a misspelt rule must not mean no rule.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ...modelfile.errors import LadingError
from ..errors import quoted
from ..progress import Progress, ProgressSink
from .errors import BadPolicy, NotSigned, SignatureInvalid

if TYPE_CHECKING:
    from ..manifest import Index, Manifest
    from ..reference import Reference
    from .attachments import Attachments
    from .key import PublicKey

MAX_POLICY = 1 << 20
"""Bytes."""

ANY = "*"
_MEMBERS = frozenset({"prefix", "signatures", "keys", "identity"})


class Mode(StrEnum):
    """What happens to a model without a good signature."""

    REQUIRE = "require"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for names below `prefix`. match_repository: a signature must name the model's repository."""

    prefix: str
    mode: Mode
    keys: tuple[PublicKey, ...] = ()
    match_repository: bool = False

    def fits(self, reference: Reference) -> bool:
        """Whole parts, in any case: ``a.example/team`` fits ``a.example/Team/x`` but not
        ``a.example/teamwork``."""
        name, prefix = reference.name.lower(), self.prefix.lower()
        return prefix == ANY or name == prefix or name.startswith(prefix + "/")


_NO_RULE = Rule(prefix=ANY, mode=Mode.OFF)


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """All rules. Without any, nothing needs a signature."""

    rules: tuple[Rule, ...] = field(default=())

    def rule_for(self, reference: Reference) -> Rule:
        """The rule with the longest prefix that fits."""
        fitting = [rule for rule in self.rules if rule.fits(reference)]
        return max(fitting, key=lambda rule: 0 if rule.prefix == ANY else len(rule.prefix), default=_NO_RULE)

    def check(
        self,
        attachments: Attachments,
        reference: Reference,
        documents: tuple[Manifest | Index, ...],
        progress: ProgressSink,
    ) -> None:
        """Makes sure that a model may be used: one of `documents` (its manifest, and the index that it was
        found in, if any) is signed as the rule for its name wants it. Under ``warn`` the progress says so.

        Raises: NotSigned, SignatureInvalid; what registries raise, under ``warn`` too: it may be an attack.
        """
        rule = self.rule_for(reference)
        if rule.mode is Mode.OFF:
            return
        try:
            _require(rule, attachments, reference, documents)
        except (NotSigned, SignatureInvalid) as error:
            if rule.mode is Mode.REQUIRE:
                error.hint = f"the signature policy requires one for {rule.prefix}"
                raise
            progress(Progress(f"warning: {error.message}"))
        else:
            progress(Progress("verifying signature"))


def _require(
    rule: Rule,
    attachments: Attachments,
    reference: Reference,
    documents: tuple[Manifest | Index, ...],
) -> None:
    from .signature import verify

    identity = reference.name if rule.match_repository else None
    failures: list[NotSigned | SignatureInvalid] = []
    for digest in dict.fromkeys(document.digest for document in documents):
        try:
            verify(attachments, digest, rule.keys, identity=identity)
            return
        except (NotSigned, SignatureInvalid) as error:
            failures.append(error)
    raise max(failures, key=lambda error: isinstance(error, SignatureInvalid))  # it says more


def read_policy(data: bytes, where: str, read_file: Callable[[str], bytes]) -> SignaturePolicy:
    """The policy in TOML. read_file: the bytes of a key file that the policy names; it may raise.

    Raises: BadPolicy, with `where` in it.
    """
    if len(data) > MAX_POLICY:
        raise BadPolicy(where, f"expected at most {MAX_POLICY} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPolicy(where, f"it is not TOML ({error})") from error
    rules = table.pop("rule", [])
    if table or not isinstance(rules, list):
        raise BadPolicy(where, "expected nothing but [[rule]] tables", hint="see docs/signatures.md")
    read = [_read_rule(rule, f"{where}, rule {number}", read_file) for number, rule in enumerate(rules, 1)]
    prefixes = [rule.prefix.lower() for rule in read]
    for prefix in prefixes:
        if prefixes.count(prefix) > 1:
            raise BadPolicy(where, f"two rules for {quoted(prefix)}")
    return SignaturePolicy(tuple(read))


def _read_rule(rule: Any, where: str, read_file: Callable[[str], bytes]) -> Rule:
    if not isinstance(rule, dict):
        raise BadPolicy(where, "expected a table")
    if unknown := sorted(set(rule) - _MEMBERS):
        raise BadPolicy(where, f"{quoted(unknown[0])} is not one of {', '.join(sorted(_MEMBERS))}")
    prefix = rule.get("prefix")
    if not isinstance(prefix, str) or not prefix.strip("/"):
        raise BadPolicy(where, "expected a prefix such as registry.example.com/team, or *")
    try:
        mode = Mode(rule.get("signatures", ""))
    except ValueError:
        raise BadPolicy(where, "signatures must be require, warn or off") from None
    identity = rule.get("identity", "any")
    if identity not in ("any", "repository"):
        raise BadPolicy(where, "identity must be any or repository")
    names = rule.get("keys", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadPolicy(where, "keys must be a list of files")
    if mode is not Mode.OFF and not names:
        raise BadPolicy(where, f"signatures = {mode.value!r} needs keys")
    keys = tuple(_read_key(name, where, read_file) for name in names)
    match = identity == "repository"
    return Rule(prefix=prefix.strip("/"), mode=mode, keys=keys, match_repository=match)


def _read_key(name: str, where: str, read_file: Callable[[str], bytes]) -> PublicKey:
    from .key_file import read_public_key

    try:
        return read_public_key(read_file(name))
    except LadingError as error:
        raise BadPolicy(where, f"key {quoted(name)}: {error.message}") from error
