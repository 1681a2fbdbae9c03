#!/bin/sh
# The main job, on real input: a broker, a publisher that streams the host's own files, a subscriber
# that was there before it and one that came later and asked for history; then how quick a message is.
# Nothing is left behind. Exit 0 only if every byte arrived.  --self-check: spoil one byte, fail.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
bytes=120000000
spoil=0
case "${1:-}" in
  "") ;;
  --self-check) spoil=1 ;;
  *) echo "usage: sh clients/demo.sh [--self-check]" >&2; exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }

say "building leat (release)"
sh "$here/.ci/setup" build
[ -f "$here/build/release/build.ninja" ] ||
  meson setup "$here/build/release" "$here" --buildtype=release -Dtests=false >/dev/null
ninja -C "$here/build/release" >/dev/null
PATH=$here/build/release/clients:$here/build/release/daemon:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/leat-demo.XXXXXX")
before=$(ls /dev/shm | sort)
pids=
cleanup() {
  for p in $pids; do kill "$p" 2>/dev/null || true; done
  for p in $pids; do wait "$p" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

say "input: this host's programs, libraries and licence texts"
# cat ends by SIGPIPE when head has enough: that is not a failure.
{ find /usr/share/common-licenses /usr/bin /usr/lib -type f -readable 2>/dev/null | sort |
  tr '\n' '\0' | xargs -0 cat 2>/dev/null || true; } | head -c $bytes > "$dir/source"
size=$(wc -c < "$dir/source")
want=$(sha256sum < "$dir/source" | cut -d' ' -f1)
echo "$size bytes, SHA-256 $want"
[ "$size" -ge 100000000 ] || { echo "less than 100 MB to be found on this host" >&2; exit 1; }

export LEAT_BROKER="$dir/broker.sock"
leatd --domain "$LEAT_BROKER" & pids="$pids $!"
i=0
until leat ping --count 1 >/dev/null 2>&1; do
  i=$((i + 1)); [ $i -lt 100 ] || { echo "the broker does not come up" >&2; exit 1; }
  sleep 0.05
done

say "one publisher, two subscribers: one there before it, one that comes later and wants history"
leat sub --raw --until-ended --timeout 60 --summary demo/stream > "$dir/early" 2> "$dir/early.json" & early=$!
pids="$pids $early"
leat pub --wait-subscribers 1 --frame 16-8192 --capacity 256M --progress --summary --timeout 60 \
  --file "$dir/source" demo/stream 2> "$dir/pub.log" & pub=$!
pids="$pids $pub"
# Later: when the first megabyte is on its way.
until [ "$(wc -c < "$dir/early")" -gt 1000000 ] || ! kill -0 $early 2>/dev/null; do sleep 0.01; done
leat sub --raw --until-ended --from oldest --timeout 60 --summary demo/stream > "$dir/late" 2> "$dir/late.json" & late=$!
pids="$pids $late"
ok=0
wait $pub || ok=1
grep -v '^{' "$dir/pub.log" || true
wait $early || ok=1
wait $late || ok=1

fact() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1" | tail -n 1; }
[ $spoil = 0 ] || {
  echo "(self-check: spoiling one byte of what the late one received)"
  at=$((size / 2))
  byte=$(dd if="$dir/late" bs=1 skip=$at count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
  printf "$(printf '\\%03o' $(((byte + 1) % 256)))" | dd of="$dir/late" bs=1 seek=$at conv=notrunc 2>/dev/null
}

say "what arrived"
for who in early late; do
  got=$(sha256sum < "$dir/$who" | cut -d' ' -f1)
  if [ "$got" = "$want" ]; then verdict=identical; else verdict=DIFFERENT; ok=1; fi
  echo "$who subscriber: $(fact "$dir/$who.json" messages) messages, $(fact "$dir/$who.json" bytes) bytes," \
    "$(fact "$dir/$who.json" lost) lost, SHA-256 $got: $verdict"
done
awk -v m="$(fact "$dir/early.json" messages)" -v b="$(fact "$dir/early.json" bytes)" \
    -v s="$(fact "$dir/early.json" seconds)" 'BEGIN {
  if (s > 0) printf "publisher to early subscriber, disk included: %.0f messages/s, %.2f GB/s\n", m / s, b / s / 1e9 }'

say "how quick one message is: ping-pong of 64 bytes between two processes"
leat ping --echo demo/quick & pids="$pids $!"
leat ping --count 200000 demo/quick || ok=1

say "cleaning up"
cleanup
pids=
trap - EXIT
[ "$(ls /dev/shm | sort)" = "$before" ] || { echo "something was left in /dev/shm" >&2; ok=1; }
[ $ok = 0 ] && echo "all of it held. Where to read on: README.md, man leat, man leat-pub" ||
  echo "FAILED: see above" >&2
exit $ok
