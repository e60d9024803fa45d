"""The canonical form, by example; that it means the same is a property (test_properties.py)."""

from __future__ import annotations

import pytest

from lading.modelfile.formatter import UnwritableValue, display_modelfile, format_modelfile
from lading.modelfile.syntax import Copy, From, Label, Modelfile, Parameter, System, Test, parse

BEFORE = """\
# A model.
#   Of ours.


# Where from.
from   llama3.2:3b
parameter  temperature   0.5
PARAMETER stop "### User: "
PARAMETER stop <|end|>
# what it is
system \"\"\"You are
helpful.\"\"\"
message user "hi"
# standing alone

message assistant  Hello "you"!
label a = b
copy   "README.md"   docs/README.md
test contains "Paris" What is the capital of France?

# the end

"""
AFTER = """\
# A model.
#   Of ours.

# Where from.
FROM llama3.2:3b

PARAMETER temperature 0.5
PARAMETER stop "### User: "
PARAMETER stop <|end|>

# what it is
SYSTEM \"\"\"You are
helpful.\"\"\"

MESSAGE user hi

# standing alone

MESSAGE assistant Hello "you"!

LABEL a=b

COPY README.md docs/README.md

TEST contains Paris What is the capital of France?

# the end
"""


def test_canonical_form() -> None:
    assert format_modelfile(parse(BEFORE)) == AFTER
    assert format_modelfile(parse(AFTER)) == AFTER


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        (" x", '" x"'),
        ("x\t", '"x\t"'),
        ("a\nb", '"""a\nb"""'),
        ('"x"', '""""x""""'),
        ('say "x"', 'say "x"'),
        ('"', '"""""""'),
        ('a"\nb', '"""a"\nb"""'),
        ("#", "#"),
        ("a\\", "a\\"),
    ],
)
def test_quotes_only_where_they_must_be(value: str, written: str) -> None:
    modelfile = Modelfile((From("x"), System(value)))
    assert format_modelfile(modelfile).partition("SYSTEM ")[2] == written + "\n"
    assert parse(format_modelfile(modelfile)) == modelfile


@pytest.mark.parametrize(
    "instruction",
    [
        System('a"""\nb'),
        System("zero\u200dwidth"),
        Label("a", "bell\x07"),
        Copy('a"b', "c"),
        Copy("a", "b\nc"),
        Test("equals", "two\nlines", "q"),
        Parameter("stop", '""" \r'),
    ],
    ids=repr,
)
def test_what_no_text_can_say_is_refused(instruction: System) -> None:
    modelfile = Modelfile((From("x"), instruction))
    with pytest.raises(UnwritableValue) as caught:
        format_modelfile(modelfile)
    assert caught.value.hint
    assert display_modelfile(modelfile).startswith("FROM x\n")
