"""`lint`: what a valid Modelfile says that its author probably did not mean, or could say better."""

from __future__ import annotations

from dataclasses import replace

from .diagnostics import Diagnostic
from .instructions import Modelfile
from .lint_rules import FINDERS, Finding
from .lint_table import RULES, Rule

__all__ = ["RULES", "Rule", "lint"]


def lint(modelfile: Modelfile) -> list[Diagnostic]:
    """All findings in the order of the text. None for a Modelfile that nothing can be said against."""
    findings = [finding for find in FINDERS for finding in find(modelfile)]
    secret = {finding.span for finding in findings if finding.hides_line}
    diagnostics = [_diagnostic(modelfile, finding, finding.span in secret) for finding in findings]
    return sorted(diagnostics, key=lambda diagnostic: (diagnostic.span, diagnostic.code))


def _diagnostic(modelfile: Modelfile, finding: Finding, hide_line: bool) -> Diagnostic:
    rule = RULES[finding.code]
    hint = finding.hint or rule.hint
    if modelfile.source is None or not finding.span.line:
        return Diagnostic(
            code=rule.code, severity=rule.severity, message=finding.message, span=finding.span, hint=hint
        )
    diagnostic = modelfile.source.diagnose_at(
        rule.code, finding.message, finding.span, hint=hint, severity=rule.severity
    )
    if hide_line:
        return replace(diagnostic, excerpt="(not shown)", excerpt_column=0, excerpt_length=11)
    return diagnostic
