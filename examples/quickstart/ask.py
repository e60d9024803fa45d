"""Ask a served model one question and print the answer as it streams. Standard library only.

    python ask.py http://127.0.0.1:11434 MODEL "What is the capital of France?"

Exits with 1 and one sentence when the server refuses.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request


def ask(server: str, model: str, question: str) -> str:
    """The whole answer; printed piece by piece on the way."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(f"{server}/api/chat", json.dumps(body).encode(), method="POST")
    pieces = []
    with urllib.request.urlopen(request, timeout=300) as reply:
        for line in reply:  # one JSON object on each line, sent as it is generated
            event = json.loads(line)
            if "error" in event:
                sys.exit(f"error: {event['error']}")
            pieces.append(event["message"]["content"])
            print(pieces[-1], end="", flush=True)
    print()
    return "".join(pieces)


if __name__ == "__main__":
    try:
        print(f"> {sys.argv[3]}")
        ask(*sys.argv[1:4])
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {json.load(error)['error']}")
