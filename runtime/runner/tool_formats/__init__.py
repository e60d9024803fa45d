"""The ways in which models write tool calls: how each is recognised, read while it streams, and enforced.

* `tool_format`: what a format is (`ToolFormat`), and its written form for grammars (`CallShape`).
* `registry`: all formats by name, and which of them a chat template uses . A template is asked to write
  a call: the format that reads back exactly that call is the template's (`format_written`).
* `parser`: finds calls in a stream (`ToolCallParser`), whatever the format.
* `cursor`: text that a format reads step by step while it arrives.
* one module for each family of formats: `json_calls`, `named_calls`, `xml_calls`, `tag_calls`,
  `python_calls`, `gemma_calls`, `llama_calls`, `go_calls`; `harmony` for gpt-oss, which writes thoughts,
  calls and content in one syntax.

**For who makes grammars.** `ToolFormat.shape` is how calls are written, in the very words of the format:
``opening (before_name NAME after_name ARGUMENTS after_arguments) {between (…)} closing``.

* ``trigger`` is the text whose appearance means that a call has begun: up to there, everything is free. It is
  how ``opening + before_name`` begins.
* ``ARGUMENTS`` is a JSON object where ``arguments`` is "json". Otherwise it is a `ParameterShape`: for each
  argument ``before_key KEY after_key VALUE after_value``, with ``between`` from one to the next. A value is
  JSON; but a string is its bare text where ``bare_strings`` is set, stands between two ``quote`` where that
  is not empty, and comes after ``after_key_of_text`` where that is not empty.
* ``shape`` None: a format which grammars cannot follow.
"""
