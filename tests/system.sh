#!/bin/sh
# Install the real registry and client that some tests talk to, where that is possible and not yet done.
missing=
for program in docker-registry skopeo; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing for the tests:$missing"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    >/dev/null 2>&1 && exit 0
  echo "note: could not install$missing"
fi
echo "note: tests that need$missing will skip"
