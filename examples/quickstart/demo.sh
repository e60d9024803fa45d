#!/bin/sh
# The main job, as two machines do it: each has its own LADING_HOME and they share nothing but a registry.
#
#   build machine:  create, push          serving machine:  pull, serve
#
# Needs `lading` on the PATH. Takes free ports on 127.0.0.1, writes to a temporary folder, and cleans up.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/lading-demo.XXXXXX")
pids=
finish() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { # wait_for URL LOG
  tries=0
  until python3 -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "$1" 2>/dev/null; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then echo "error: nothing answers at $1; its log:" >&2; cat "$2" >&2; exit 1; fi
    sleep 0.2
  done
}

registry=127.0.0.1:$(free_port)
model=$registry/demo/tiny-chat:1.0

say "1. A registry: Lading's own, over an empty store ($registry)"
LADING_HOME="$work/registry" lading registry --listen "$registry" 2>"$work/registry.log" &
pids="$pids $!"
wait_for "http://$registry/v2/" "$work/registry.log"

say "2. The build machine: create from a Modelfile, then push"
LADING_HOME="$work/builder" lading create "$model" -f "$here/Modelfile"
LADING_HOME="$work/builder" lading push "$model"

say "3. The serving machine: pull, then serve"
LADING_HOME="$work/server" lading pull "$model"
LADING_HOME="$work/server" lading ls
server=127.0.0.1:$(free_port)
LADING_HOME="$work/server" LADING_HOST="$server" lading serve 2>"$work/server.log" &
pids="$pids $!"
wait_for "http://$server/readyz" "$work/server.log"

say "4. A question over REST, answered as it streams"
python3 "$here/ask.py" "http://$server" "$model" "What is the capital of France?"
python3 "$here/ask.py" "http://$server" "$model" "Count from 1 to 20."

say "Done. Next: read examples/quickstart/Modelfile, and docs/."
