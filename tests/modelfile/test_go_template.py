"""Go's text/template: every construct and function, what is refused, and that nothing else comes of any
text."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lading.modelfile.go_template import BadTemplate, parse_template, render_chat
from lading.modelfile.go_template_exec import execute
from lading.modelfile.go_template_syntax import parse

TODAY = date(2026, 3, 1)
DATA: dict[str, Any] = {
    "S": "héllo",
    "E": "",
    "I": 3,
    "Z": 0,
    "F": 2.5,
    "Big": 1e21,
    "Whole": 4.0,
    "T": True,
    "N": None,
    "L": ["a", "b", "c"],
    "Nums": [3, 1, 2],
    "Empty": [],
    "M": {"b": 2, "a": 1, "deep": {"x": {"y": "z"}}},
    "Mixed": [1, {"k": "<v>"}],
}


def _execute(text: str) -> str:
    return execute(parse(text), DATA, today=TODAY)


WRITES = [
    # Text, trimming, comments.
    ("plain { text } }} x", "plain { text } }} x"),
    ("", ""),
    ("a {{- 1 }} b", "a1 b"),
    ("a {{ 1 -}} \n\t b", "a 1b"),
    ("a \n {{- 1 -}} \n b", "a1b"),
    ("{{-3}}", "-3"),
    ("a {{- -3 }}", "a-3"),
    ("a{{/* c */}}b", "ab"),
    ("a {{- /* c\n * / */ -}} b", "ab"),
    ("{{/**/}}", ""),
    ("{{ \n .I \n }}", "3"),
    # Values.
    ("{{ .S }} {{ .I }} {{ .F }} {{ .T }} {{ .E }}", "héllo 3 2.5 true "),
    ("{{ .Big }} {{ .Whole }}", "1e+21 4"),
    ("{{ .N }} {{ .Missing }}", "<no value> <no value>"),
    ("{{ .L }} {{ .Nums }} {{ .Empty }}", "[a b c] [3 1 2] []"),
    ("{{ .M }}", '{"a":1,"b":2,"deep":{"x":{"y":"z"}}}'),
    ("{{ .Mixed }}", '[1,{"k":"<v>"}]'),
    ("{{ .M.deep.x.y }} {{ (.M).a }} {{ $.I }} {{ (index .L 1) }}", "z 1 3 b"),
    (
        "{{ true }} {{ false }} {{ 1 }} {{ -2 }} {{ +3 }} {{ 1.5 }} {{ .5 }} {{ 1e3 }}",
        "true false 1 -2 3 1.5 0.5 1000",
    ),
    (
        "{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }} {{ 'a' }} {{ '\\n' }} {{ 0x1p-2 }}",
        "31 5 15 15 1000 97 10 0.25",
    ),
    ('{{ "a\\tb\\"\\x41\\u00e9\\101\\xc3\\xa9" }}', 'a\tb"AéAé'),
    ('{{ `raw\\n{{ "` }}', 'raw\\n{{ "'),
    # Conditions.
    ("{{ if .T }}y{{ end }}{{ if .Z }}n{{ end }}", "y"),
    ("{{ if .E }}1{{ else if .Empty }}2{{ else if .N }}3{{ else }}4{{ end }}", "4"),
    ("{{ if .Missing }}1{{ else }}2{{ end }}", "2"),
    ("{{ if not .Z }}y{{ end }}", "y"),
    ("{{ if $x := .I }}{{ $x }}{{ end }}", "3"),
    ("{{if(.T)}}y{{end}}", "y"),
    # With.
    ("{{ with .M }}{{ .a }}{{ end }}{{ with .N }}x{{ else }}e{{ end }}", "1e"),
    ("{{ with .N }}x{{ else with .S }}{{ . }}{{ end }}", "héllo"),
    ("{{ with $y := .I }}{{ $y }}{{ . }}{{ end }}", "33"),
    ("{{ with .N }}{{ else }}{{ .I }}{{ end }}", "3"),
    # Range.
    ("{{ range .L }}{{ . }},{{ end }}", "a,b,c,"),
    ("{{ range $i, $e := .L }}{{ $i }}{{ $e }}{{ end }}", "0a1b2c"),
    ("{{ range $e := .L }}{{ $e }}{{ . }}{{ end }}", "aabbcc"),
    ("{{ range $k, $v := .M.deep }}{{ $k }}={{ $v }}{{ end }}", 'x={"y":"z"}'),
    ("{{ range $k, $v := (index .Mixed 1) }}{{ $k }}{{ $v }}{{ end }}", "k<v>"),
    ("{{ range .Empty }}x{{ else }}none{{ end }}{{ range .N }}x{{ else }}nil{{ end }}", "nonenil"),
    ("{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}", "01201"),
    ('{{ range .L }}{{ if eq . "b" }}{{ break }}{{ end }}{{ . }}{{ end }}', "a"),
    ('{{ range .L }}{{ if eq . "b" }}{{ continue }}{{ end }}{{ . }}{{ end }}', "ac"),
    ("{{ range .L }}{{ range $.Nums }}{{ . }}{{ break }}{{ end }}{{ . }}{{ end }}", "3a3b3c"),
    ("{{ $n := 0 }}{{ range .L }}{{ $n = . }}{{ end }}{{ $n }}", "c"),
    ("{{ $a := 1 }}{{ $b := 2 }}{{ range $a, $b = .L }}{{ end }}{{ $a }}{{ $b }}", "2c"),
    # Variables.
    ("{{ $x := 1 }}{{ if .T }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
    ("{{ $x := 1 }}{{ if .T }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
    ("{{ $m := .M }}{{ $m.deep.x.y }}", "z"),
    ("{{ $x := .L | len }}{{ $x }}", "3"),
    ("{{ ($y := 4) }}{{ $y }}", "44"),
    # Pipelines.
    ('{{ .S | printf "%s-%s" "x" }}', "x-héllo"),
    ('{{ "a" | print "b" | len }}', "2"),
    ("{{ .L | len | eq 3 }}", "true"),
    # Templates.
    (
        '{{ define "t" }}<{{ . }}{{ $ }}>{{ end }}{{ template "t" .I }}{{ template "t" }}',
        "<33><<no value><no value>>",
    ),
    ('{{ template "later" .S }}{{ define "later" }}{{ . }}{{ end }}', "héllo"),
    ('{{ block "b" .I }}[{{ . }}]{{ end }}{{ template "b" 7 }}', "[3][7]"),
    ('{{ define "b" }}new{{ end }}{{ block "b" . }}old{{ end }}', "new"),
    (
        '{{ define "r" }}{{ if . }}{{ slice . 0 1 }}{{ template "r" (slice . 1) }}'
        '{{ end }}{{ end }}{{ template "r" "abc" }}',
        "abc",
    ),
    # Functions.
    ("{{ and 1 0 2 }} {{ and 1 2 }} {{ or 0 .E 5 6 }} {{ or 0 .E }}", "0 2 5 "),
    ("{{ and .N .N.x }} {{ or .T .N.x }}", "<no value> true"),
    ('{{ not 0 }} {{ not "x" }}', "true false"),
    (
        '{{ eq 1 1 }} {{ eq 1 2 3 1 }} {{ eq "a" "b" }} {{ eq .T true }} {{ eq 1.5 .F }} {{ eq .Whole 4 }}',
        "true true false true false true",
    ),
    ('{{ eq .N nil }} {{ eq .N "a" }} {{ ne .I 3 }} {{ ne "a" "b" }}', "true false false true"),
    ('{{ lt 1 2 }} {{ le 2 2 }} {{ gt "b" "a" }} {{ ge 1.5 2 }}', "true true true false"),
    ('{{ len .S }} {{ len .L }} {{ len .M }} {{ len "" }}', "6 3 3 0"),
    (
        '{{ index .L 0 }} {{ index .M "a" }} {{ index .M "no" }} '
        '{{ index .M "deep" "x" "y" }} {{ index "abc" 1 }}',
        "a 1 <no value> z 98",
    ),
    (
        '{{ slice .L 1 }} {{ slice .L 0 2 }} {{ slice .L 0 1 2 }} {{ slice "hello" 1 3 }} {{ slice .S 1 3 }}',
        "[b c] [a b] [a] el é",
    ),
    ('{{ print 1 2 "x" 3 }} {{ print "a" "b" }} {{ println "a" 1 }}', "1 2x3 ab a 1\n"),
    ("{{ print nil }}", "<nil>"),
    ('{{ html "<a href=\'x\'>&\\"" }}', "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
    ("{{ js \"<'a'=\\n>\" }}", "\\u003C\\'a\\'\\u003D\\u000A\\u003E"),
    ('{{ urlquery "a b&c/é~" }}', "a+b%26c%2F%C3%A9~"),
    (
        "{{ json .M }} {{ json .S }} {{ json nil }} {{ json .L }} {{ json .Whole }}",
        '{"a":1,"b":2,"deep":{"x":{"y":"z"}}} "héllo" null ["a","b","c"] 4',
    ),
    ('{{ currentDate }} {{ currentDate "x" 1 }} {{ yesterdayDate }}', "2026-03-01 2026-03-01 2026-02-28"),
    # printf.
    ('{{ printf "%s|%v|%d|%t|%%" "a" 1 2 true }}', "a|1|2|true|%"),
    ('{{ printf "%5d|%-5d|%05d|%+d|% d" 42 42 -42 42 42 }}', "   42|42   |-0042|+42| 42"),
    ('{{ printf "%x %X %o %b %c %U %#x" 255 255 8 5 65 65 255 }}', "ff FF 10 101 A U+0041 0xff"),
    (
        '{{ printf "%.2f %8.3f %e %g %v" 3.14159 2.5 1234.5 0.1 1e-7 }}',
        "3.14    2.500 1.234500e+03 0.1 1e-07",
    ),
    (
        '{{ printf "%q %q %5s|%-5s|%.2s" "a\\"b\\n" \'x\' "ab" "ab" "abc" }}',
        '"a\\"b\\n" \'x\'    ab|ab   |ab',
    ),
    (
        '{{ printf "%d" "x" }} {{ printf "%d" }} {{ printf "a" 1 }} {{ printf "%z" 1 }} {{ printf "%" }}',
        "%!d(string=x) %!d(MISSING) a%!(EXTRA int=1) %!z(int=1) %!(NOVERB)",
    ),
    ('{{ printf "%*d|%T|%T" 4 7 "s" .L }}', "   7|string|[]interface {}"),
    ('{{ printf "%99999d" 1 }}', "%!(BADWIDTH)1"),
    ('{{ printf "%x" "hi" }} {{ printf "%v %s" .L .L }}', "6869 [a b c] [a b c]"),
]


@pytest.mark.parametrize(("text", "written"), WRITES, ids=[row[0][:60] for row in WRITES])
def test_writes(text: str, written: str) -> None:
    assert _execute(text) == written


NO_TEMPLATE = [
    ("{{ .A", 1, 1, "never closed: expected }}"),
    ("x\n{{ if .A }}y", 2, 1, "{{if}} is never closed: expected {{end}}"),
    ("{{ range .A }}{{ if .B }}{{ end }}", 1, 1, "{{range}} is never closed"),
    ("{{ end }}", 1, 4, "{{end}} closes nothing"),
    ("{{ else }}", 1, 4, "{{else}} belongs to nothing"),
    ("{{ if .A }}{{ else }}{{ else }}{{ end }}", 1, 25, "{{else}} belongs to nothing"),
    ("{{ if .A }}{{ else }}{{ else if .B }}{{ end }}", 1, 25, "{{else}} belongs to nothing"),
    ("{{ if .A }}{{ define `x` }}{{ end }}{{ end }}", 1, 15, "{{define}} must stand outside"),
    ("{{ }}", 1, 4, 'unexpected "}": expected a value'),
    ("{{ if }}{{ end }}", 1, 7, "expected a value"),
    ("{{ nope .A }}", 1, 4, 'function "nope" not defined'),
    ("{{ .A.B.nope | Printf }}", 1, 16, 'function "Printf" not defined'),
    ("{{ $x }}", 1, 4, 'undefined variable "$x"'),
    ("{{ $x = 1 }}", 1, 9, 'undefined variable "$x"'),
    ("{{ if .A }}{{ $x := 1 }}{{ end }}{{ $x }}", 1, 37, 'undefined variable "$x"'),
    ("{{ define `t` }}{{ $x }}{{ end }}{{ $x := 1 }}", 1, 20, 'undefined variable "$x"'),
    ("{{ $a, $b := .L }}", 1, 14, "two variables can only be declared by {{range}}"),
    ("{{ .A..B }}", 1, 6, 'unexpected "."'),
    ('{{ "x }}', 1, 4, "unexpected"),
    ('{{ "\\q" }}', 1, 4, "unknown escape \\q"),
    ("{{ 'ab' }}", 1, 4, "one character"),
    ("{{ 1x }}", 1, 4, "bad number syntax"),
    ("{{ 99999999999999999999 }}", 1, 4, "64 bits"),
    ("{{ 1i }}", 1, 4, "bad number syntax"),
    ("{{ (.A }}", 1, 8, "expected )"),
    ("{{ .A) }}", 1, 6, "expected }}"),
    ("{{ true.A }}", 1, 4, "has no fields"),
    ("{{ nil }}", 1, 4, "nil is not a command"),
    ("{{ .A | 3 }}", 1, 9, "must be a function or a field"),
    ("{{ break }}", 1, 1, "{{break}} outside of {{range}}"),
    ("{{ range .A }}{{ else }}{{ continue }}{{ end }}", 1, 25, "{{continue}} outside of {{range}}"),
    ("{{ template x }}", 1, 13, "a name in double quotes"),
    ("{{ .A | }}", 1, 9, "expected a value"),
    ("{{ ; }}", 1, 4, 'unexpected ";"'),
    ("{{ if .A }}" * 41 + "{{ end }}" * 41, 1, 441, "nested too deeply"),
    ("{{ " + "(" * 41 + "1" + ")" * 41 + " }}", 1, 44, "nested too deeply"),
    ("".join(f"{{{{ $x{i} := 1 }}}}" for i in range(300)), 1, None, "too many variables"),
]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"), NO_TEMPLATE, ids=[row[0][:40] for row in NO_TEMPLATE]
)
def test_refuses_what_is_no_template(text: str, line: int, column: int | None, message: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        parse_template(text)
    diagnostic = caught.value.diagnostic
    assert message in diagnostic.message
    assert diagnostic.code == "T001"
    assert diagnostic.span.line == line
    assert column is None or diagnostic.span.column == column
    assert "^" in str(caught.value)


NO_VALUE = [
    ("{{ .N.x }}", "nil pointer evaluating .x"),
    ("{{ .Missing.x }}", "nil pointer evaluating .x"),
    ("{{ .S.x }}", "can't evaluate field x in type string"),
    ("{{ .L.x }}", "can't evaluate field x in type []interface {}"),
    ("{{ .I 1 }}", "only a function takes arguments"),
    ("{{ 1 | .I }}", "only a function takes arguments"),
    ("{{ range .S }}{{ end }}", "range can't iterate over a value of type string"),
    ("{{ range .T }}{{ end }}", "range can't iterate"),
    ('{{ template "none" }}', "template 'none' not defined"),
    ("{{ eq 1 }}", "missing argument for comparison"),
    ('{{ eq 1 "a" }}', "incompatible types for comparison"),
    ("{{ eq .L .L }}", "non-comparable type"),
    ("{{ lt .T .T }}", "invalid type for comparison"),
    ('{{ lt 1 "a" }}', "incompatible types"),
    ("{{ len 3 }}", "len of type int"),
    ("{{ len }}", "wrong number of arguments for len: want 1, got 0"),
    ("{{ not 1 2 }}", "wrong number of arguments for not: want 1, got 2"),
    ("{{ and }}", "wrong number of arguments for and: want at least 1, got 0"),
    ("{{ index .L 3 }}", "index out of range: 3"),
    ("{{ index .L -1 }}", "index out of range: -1"),
    ('{{ index .L "a" }}', "cannot index"),
    ("{{ index .M 1 }}", "should be string"),
    ("{{ index .N 1 }}", "index of untyped nil"),
    ("{{ slice .L 2 1 }}", "invalid slice index"),
    ("{{ slice .M }}", "can't slice"),
    ("{{ slice .S 0 1 2 }}", "3-index"),
    ("{{ printf 1 }}", "expected string"),
    ("{{ call .S }}", "non-function of type string"),
]


@pytest.mark.parametrize(("text", "message"), NO_VALUE, ids=[row[0] for row in NO_VALUE])
def test_refuses_what_the_data_has_not(text: str, message: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        _execute("line\n" + text)
    assert message in caught.value.message
    assert caught.value.diagnostic.code == "T002"
    assert caught.value.diagnostic.span.line == 2


ENDLESS = {
    "recursion": '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
    "mutual recursion": '{{ define "a" }}{{ if 1 }}{{ template "b" }}{{ end }}{{ end }}'
    '{{ define "b" }}{{ with 1 }}{{ template "a" }}{{ end }}{{ end }}{{ template "a" }}',
    "long loop": "{{ range 1000000000000 }}{{ end }}",
    "nested loops": "{{ range 100000 }}{{ range 100000 }}{{ $x := . }}{{ end }}{{ end }}",
    "output": "{{ range 1000000 }}" + "x" * 100 + "{{ end }}",
    "doubling": '{{ $x := "xxxxxxxx" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}',
    "padding": '{{ range 100000 }}{{ $x := printf "%1000d" 1 }}{{ end }}',
    "calls that branch": '{{ define "a" }}{{ template "b" }}{{ template "b" }}{{ end }}'
    + "".join(
        f'{{{{ define "{a}" }}}}{{{{ template "{b}" }}}}{{{{ template "{b}" }}}}{{{{ end }}}}'
        for a, b in zip("bcdefghijklmnopqrstuvwxy", "cdefghijklmnopqrstuvwxyz", strict=True)
    )
    + '{{ define "z" }}{{ end }}{{ template "a" }}',
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_would_not_end_is_stopped(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(BadTemplate, match=r"too|nested"):
        _execute(text)
    assert time.process_time() - begin < 8


LARGE = {
    "too long": "x" * (256 * 1024 + 1),
    "text": "x" * 256 * 1024,
    "braces": "{" * 256 * 1024,
    "blanks": "a" + " " * 200_000 + "{{- 1 }}" + " " * 50_000,
    "blanks in an action": "{{" + " " * 200_000 + "1" + " " * 50_000 + "}}",
    "blanks between operands": "{{ print 1" + " " * 200_000 + "2 }}",
    "actions": "{{ . }}" * 9_000,
    "comments": "{{/**/}}" * 8_000,
    "unclosed comment": "{{/*" + "*/ " * 80_000,
    "fields": "{{ " + ".A" * 32_000 + " }}",
    "operands": "{{ print" + " 1" * 32_000 + " }}",
    "commands": "{{ 1" + "|len" * 16_000 + " }}",
    "branches": "{{ if .A }}" + "{{ else if .B }}" * 4_000 + "{{ end }}",
    "brackets": "{{ " + "(" * 250_000,
    "blocks": "{{ if 1 }}" * 6_500,
    "string": '{{ "' + "\\n" * 130_000 + '" }}',
    "unclosed string": '{{ "' + "\\n" * 130_000,
    "number": "{{ " + "1" * 250_000 + " }}",
    "definitions": '{{define "a"}}{{end}}' * 3_000,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_the_largest_templates_are_parsed_in_time(text: str) -> None:
    begin = time.process_time()
    try:
        template = parse_template(text)
        render_chat(template, [{"role": "user", "content": "hi"}])
    except BadTemplate as error:
        assert len(str(error)) < 2000
    assert time.process_time() - begin < 4


_PIECES = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{-",
            "-}}",
            "{{ ",
            " }}",
            "{{- ",
            " -}}",
            "{{/*",
            "*/}}",
            "(",
            ")",
            "|",
            " | ",
            ",",
            " ",
        ),
        *(
            "if ",
            "else",
            "else if ",
            "end",
            "range ",
            "with ",
            "define ",
            "block ",
            "template ",
            "break",
            "continue",
        ),
        *(
            ".",
            ".A",
            ".Messages",
            ".Role",
            ".Response",
            ".Prompt",
            "$",
            "$x",
            "$x := ",
            "$x, $y := ",
            "$x = ",
        ),
        *('"a"', "`a`", "'a'", "1", "-1", "0.5", "true", "nil", "1.", ".5", "\n", "\t", "text", "{", "}"),
        *(
            "{{ if .A }}",
            "{{ end }}",
            "{{ range .Messages }}",
            "{{ .Content }}",
            "{{ else }}",
            "{{ .Response }}",
        ),
        *(
            "print ",
            "printf ",
            "eq ",
            "len ",
            "index ",
            "slice ",
            "json ",
            "and ",
            "or ",
            "not ",
            "currentDate ",
        ),
    ]
)
_almost_templates = st.lists(_PIECES, max_size=30).map("".join)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"])},
        optional={
            "content": _json,
            "thinking": _json,
            "tool_calls": _json,
            "images": _json,
            "tool_name": _json,
        },
    ),
    max_size=4,
)


@given(
    st.one_of(_almost_templates, st.text()),
    _messages,
    st.lists(st.dictionaries(st.text(), _json, max_size=3)),
)
@settings(deadline=None, max_examples=300)
@example("{{ range .Messages }}{{ .ToolCalls }}{{ end }}", [{"role": "user", "tool_calls": [1]}], [])
def test_any_text_is_rendered_or_refused(text: str, messages: list[Any], tools: list[Any]) -> None:
    try:
        template = parse_template(text)
    except BadTemplate as error:
        assert str(error)
        return
    try:
        assert isinstance(render_chat(template, messages, tools, True, today=TODAY), str)
    except BadTemplate as error:
        assert error.diagnostic.code == "T002"


@given(_json)
@settings(deadline=None, max_examples=300)
def test_any_tool_and_call_is_taken(value: Any) -> None:
    template = parse_template(
        "{{ .Tools }}{{ range .Tools }}{{ .Function }}{{ range $n, $p := .Function.Parameters.Properties }}"
        "{{ $n }}{{ toTypeScriptType $p }}{{ end }}{{ end }}"
        "{{ range .Messages }}{{ .ToolCalls }}{{ range .ToolCalls }}"
        "{{ .Function.Arguments }}{{ end }}{{ end }}"
    )
    calls = [{"function": {"name": "f", "arguments": value}}, {"function": value}]
    tools = [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"properties": {"p": {"type": "string", "x": value}}}},
        },
        {"type": "function", "function": {"name": "f", "parameters": {"$defs": value, "required": value}}},
        {"function": value},
    ]
    render_chat(template, [{"role": "assistant", "tool_calls": calls}], tools, today=TODAY)
