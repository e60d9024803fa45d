#!/bin/sh
# Install the real registry, clients and containers that some tests use, where that is possible and not yet done.
PATH="$PATH:/usr/lib/podman:/usr/libexec/podman"
missing=
for program in docker-registry skopeo curl openssl podman runc netavark catatonit busybox; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  packages=$(echo "$missing" | sed 's/busybox/busybox-static/')
  echo "Installing for the tests:$packages"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; } \
    >/dev/null 2>&1 && exit 0
  echo "note: could not install$packages"
fi
echo "note: tests that need$missing will skip"
