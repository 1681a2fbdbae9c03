#!/bin/sh
# Feed the parsers with what nobody would send. Needs clang.
#   sh tests/fuzz/run.sh SECONDS [TARGET...]   each for so long, two at a time; TAP; what fails is kept in build/fuzz
#   sh tests/fuzz/run.sh coverage              how much of what they are for the committed inputs reach
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here" || exit 1
targets="wire ring broker config snapshot ticket"
export LLVM_PROFILE_FILE=/dev/null # what a configuring meson tries would leave files about

# build NAME MESON-ARGS...
build() {
  name=$1; shift
  [ -f "build/$name/build.ninja" ] || CC=clang meson setup "build/$name" -Dfuzz=true -Dtests=false -Db_lundef=false \
    --buildtype=debugoptimized "$@" > "build.$$" 2>&1 || { cat "build.$$"; rm -f "build.$$"; exit 1; }
  rm -f "build.$$"
  ninja -C "build/$name" > "build/$name/log" 2>&1 || { tail -n 40 "build/$name/log"; exit 1; }
}

if [ "${1:-}" = coverage ]; then
  build coverage -Db_sanitize=address -Dc_args='-fprofile-instr-generate -fcoverage-mapping' \
    -Dc_link_args='-fprofile-instr-generate'
  objects=
  for t in $targets; do
    LLVM_PROFILE_FILE=build/coverage/$t.profraw
    "build/coverage/tests/fuzz/fuzz_$t" -runs=0 "tests/fuzz/corpus/$t" 2>/dev/null
    objects="$objects${objects:+ -object} build/coverage/tests/fuzz/fuzz_$t"
  done
  llvm-profdata merge -o build/coverage/all.profdata build/coverage/*.profraw
  # What parses, function by function: a file that also writes what it reads is counted without that. Then what does
  # something with what was read, by file.
  # shellcheck disable=SC2086
  parses() {
    llvm-cov report $objects -instr-profile=build/coverage/all.profdata -show-functions \
      "-path-equivalence=$here/build/coverage/../..,$here" "$here/$1" |
      awk -v f="$1" -v no="${2:-}" '$5 ~ /^[0-9]+$/ && $1 != "TOTAL" { name = $1; sub(/.*[:;]/, "", name)
        if (no == "" || name !~ "^(" no ")$") { lines += $5; missed += $6 } }
        END { printf "%-20s %5.1f%% of %3d lines that parse\n", f, lines ? 100 * (lines - missed) / lines : 0, lines }'
  }
  parses lib/link/wire.c
  parses lib/mem/layout.c
  parses daemon/policy.c
  parses daemon/ticket.c 'keys_write|ticket_keys_(open|add)|add|add_all|encode|ticket_mint'
  parses daemon/snapshot.c 'keep_.*|broker_commit'
  parses daemon/store.c 'grow|tell|take_.*|drop_all|map_log|new_log|old_log|close_log|write_log|store_(ready|keep|drop|open|close|put|del|waits|commit|tidy|touch)'
  # shellcheck disable=SC2086
  llvm-cov report $objects -instr-profile=build/coverage/all.profdata > build/coverage/report
  for f in daemon/requests.c daemon/objects.c daemon/registry.c daemon/rings.c daemon/slots.c daemon/shares.c \
    daemon/looks.c daemon/quota.c daemon/changes.c lib/ring/reader.c lib/ring/group.c; do
    awk -v f="$f" '$1 == f { printf "%-20s %6s of %3d lines\n", $1, $10, $8 }' build/coverage/report
  done
  exit
fi

seconds=${1:?usage: sh tests/fuzz/run.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] && targets=$*
build fuzz -Db_sanitize=address,undefined
one() {
  work=build/fuzz/work/$1
  mkdir -p "$work"
  dict=
  [ -f "tests/fuzz/$1.dict" ] && dict=-dict=tests/fuzz/$1.dict
  # shellcheck disable=SC2086
  "build/fuzz/tests/fuzz/fuzz_$1" -max_total_time="$seconds" -max_len=4500 -print_final_stats=1 $dict \
    -artifact_prefix="build/fuzz/$1-" "$work" "tests/fuzz/corpus/$1" > "build/fuzz/$1.log" 2>&1
  echo $? > "build/fuzz/$1.code"
}
n=0 bad=0 running=0
for t in $targets; do
  one "$t" &
  running=$((running + 1))
  [ $((running % 2)) = 0 ] && wait
done
wait
for t in $targets; do
  n=$((n + 1))
  runs=$(sed -n 's/.*number_of_executed_units: *//p' "build/fuzz/$t.log")
  if [ "$(cat "build/fuzz/$t.code")" = 0 ]; then
    echo "ok $n - fuzz_$t: $runs inputs in $seconds s"
  else
    bad=1
    grep -v -E 'NEW|REDUCE|pulse|RELOAD' "build/fuzz/$t.log" | tail -n 30 | sed 's/^/# /'
    echo "not ok $n - fuzz_$t"
  fi
done
echo "1..$n"
exit $bad
