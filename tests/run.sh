#!/bin/sh
# Set up, build, and run the test suites.
#   sh tests/run.sh              every suite in its short form
#   sh tests/run.sh SUITE...     some of them
#   sh tests/run.sh full [SUITE...]   their long forms (hours)
#   sh tests/run.sh crash        all that hunts for losses when something dies, stops, lies or runs out, with
#                                the proofs, and its counts: suites crash, liars, models
#   sh tests/run.sh campaign     the same in its long form
# Suites: unit channel cli api docs crash models, built with gcc; liars (hostile programs, under ASan and UBSan);
# tests of these again as clang, semaphore (-Dwait=semaphore: where somebody waits), asan (gcc, with UBSan), tsan (clang), asan-clang and
# tsan-gcc (unit; in the long form channel, too), i386, aarch64 (unit, under emulation where need be); interop (32- and
# 64-bit programs exchange messages, and with brokers of the next version); fuzz (a minute for each target; an hour in
# the long form). Ends with the counts; exit 0 only if none failed.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 1
all="unit channel cli api docs crash models clang semaphore asan tsan asan-clang tsan-gcc i386 aarch64 interop fuzz"

if [ "${1:-}" = full ]; then
  export LEAT_FULL=1
  shift
fi
case "$*" in
  crash) set -- crash liars models ;;
  campaign) export LEAT_FULL=1; set -- crash liars models ;;
esac
want=${*:-$all}
for s in $want; do
  case " $all liars " in
    *" $s "*) ;;
    *) echo "tests/run.sh: there is no suite '$s'; there are: $all liars campaign" >&2; exit 2 ;;
  esac
done

sh .ci/setup tests || exit 1
log=$(mktemp "${TMPDIR:-/tmp}/leat-run.XXXXXX")
trap 'rm -f "$log"' EXIT
failed_builds=0
started=$(date +%s)

# build NAME MESON-ARGS...: build/NAME, configured once; all of it, or $targets
unit="tests/check_hotpath tests/check_region tests/check_ring tests/check_sync tests/check_wire"
targets=
build() {
  name=$1; shift
  if [ ! -f "build/$name/build.ninja" ]; then
    meson setup "build/$name" "$@" > "$log.build" 2>&1 || { cat "$log.build"; rm -f "$log.build"; return 1; }
  fi
  # shellcheck disable=SC2086
  ninja -C "build/$name" $targets > "$log.build" 2>&1 || { tail -n 60 "$log.build"; rm -f "$log.build"; return 1; }
  rm -f "$log.build"
}

# run NAME MESON-TEST-ARGS...: and keep its TAP for the count
run() {
  name=$1; shift
  rm -f "build/$name/meson-logs/testlog.json"
  # One at a time: most suites are several processes already, and measure time.
  meson test -C "build/$name" --no-rebuild --num-processes "${processes:-1}" --print-errorlogs "$@" 2>&1 |
    grep -E '^ *[0-9]+/[0-9]+ |^not ok|^# ' | grep -v LEAT_SEED
  [ -f "build/$name/meson-logs/testlog.json" ] && cat "build/$name/meson-logs/testlog.json" >> "$log"
}

# A Check for another architecture, unpacked beside the build: nothing is installed for it.
foreign() {
  arch=$1
  root=$here/build/foreign-$arch
  [ -f "$root/.done" ] && return 0
  mkdir -p "$root/lists/partial" "$root/debs"
  o="-oAPT::Architecture=$arch -oAPT::Architectures=$arch -oDir::State::Lists=$root/lists -oDebug::NoLocking=1 -oDir::Cache=$root -oAPT::Sandbox::User="
  # shellcheck disable=SC2086
  # Not every list needs to come: what counts is whether these two packages do.
  apt-get $o -qq update >/dev/null 2>&1
  # shellcheck disable=SC2086
  (cd "$root/debs" && apt-get $o -qq download check libsubunit-dev) >/dev/null || return 1
  for d in "$root"/debs/*.deb; do dpkg -x "$d" "$root"; done
  touch "$root/.done"
}

cross() {
  arch=$1 triple=$2 family=$3 wrapper=$4
  foreign "$arch" || { echo "cannot get Check for $arch"; return 1; }
  libdir=$here/build/foreign-$arch/usr/lib/$5
  cat > "build/$arch.txt" <<X
[binaries]
c = '$triple-gcc'
ar = '$triple-ar'
strip = '$triple-strip'
pkgconfig = 'pkg-config'
$wrapper
[properties]
pkg_config_libdir = '$libdir/pkgconfig'
sys_root = '$here/build/foreign-$arch'
[host_machine]
system = 'linux'
cpu_family = '$family'
cpu = '$family'
endian = 'little'
X
  build "$arch" --cross-file "build/$arch.txt" --buildtype=debugoptimized -Ddefault_library=static -Dprograms=false
}

interop() {
  dir=$(mktemp -d "${TMPDIR:-/tmp}/leat-interop.XXXXXX")
  build/gcc/daemon/leatd --domain "$dir/broker.sock" & broker=$!
  n=0
  for pair in "gcc i386" "i386 gcc" "i386 i386"; do
    # shellcheck disable=SC2086
    set -- $pair
    n=$((n + 1))
    until [ -S "$dir/broker.sock" ]; do sleep 0.01; done
    LEAT_BROKER=$dir/broker.sock build/$2/tests/peer sub "x/$n" 30000 & sub=$!
    if LEAT_BROKER=$dir/broker.sock build/$1/tests/peer pub "x/$n" 30000 && wait $sub; then
      r=ok
    else
      r="not ok"
    fi
    echo "$r $n - messages from a $1 program to a $2 program"
  done | tee "$dir/tap"
  python3 - "$dir/tap" >> "$log" <<'P'
import json, sys
print(json.dumps({"name": "interop", "result": "OK", "stdout": open(sys.argv[1]).read() + "1..3\n"}))
P
  kill $broker
  wait $broker 2>/dev/null
  rm -rf "$dir"
  # Programs and brokers of versions that are neighbours, both ways; a broker that becomes the other and back.
  other gcc next
  other next gcc
}

# other PROGRAMS BROKER: the suites of one build with the broker of another.
other() {
  for t in channel share watch queue worker; do
    only=
    [ $t = worker ] && only=CK_RUN_CASE=version
    # shellcheck disable=SC2086
    env $only LEAT_LEATD=$here/build/$2/daemon/leatd LEAT_OTHER_WORKER=$here/build/$1/daemon/leatd-worker LEAT_BUILD=$here/build/$1 \
      LEAT_SRC=$here LEAT_CMD=$here/build/$1/clients/leat CK_TAP_LOG_FILE_NAME=- \
      "build/$1/tests/check_$t" > "$log.tap" 2>> "$log.err"
    code=$?
    grep -a '^not ok' "$log.tap"
    echo "check_$t of $1 with the broker of $2: $code"
    python3 - "$log.tap" "$t: $1 with the broker of $2" $code >> "$log" <<'P'
import json, sys
text = open(sys.argv[1], errors="replace").read()
print(json.dumps({"name": sys.argv[2], "result": "OK" if sys.argv[3] == "0" else "ERROR", "stdout": text}))
P
  done
  rm -f "$log.tap" "$log.err"
}

fuzz() {
  seconds=60
  [ -n "${LEAT_FULL:-}" ] && seconds=3600
  sh tests/fuzz/run.sh $seconds | tee "$log.tap"
  python3 - "$log.tap" >> "$log" <<'P'
import json, sys
text = open(sys.argv[1]).read()
print(json.dumps({"name": "fuzz", "result": "OK" if "1.." in text else "ERROR", "stdout": text}))
P
  rm -f "$log.tap"
}

step() { printf '\n== %s (%ds)\n' "$1" $(($(date +%s) - started)); }
skip=0
for s in $want; do
  step "$s"
  case $s in
    unit | channel | cli | api | docs)
      build gcc --buildtype=debugoptimized && run gcc --suite "$s" || failed_builds=$((failed_builds + 1)) ;;
    crash) # steps waits most of its time
      build gcc --buildtype=debugoptimized && processes=2 && run gcc --suite crash --suite fault ||
        failed_builds=$((failed_builds + 1))
      processes=1 ;;
    models) # nothing there measures time
      build gcc --buildtype=debugoptimized && processes=2 && run gcc --suite models ||
        failed_builds=$((failed_builds + 1))
      processes=1 ;;
    liars)
      build asan --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false &&
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 run asan hostile || failed_builds=$((failed_builds + 1)) ;;
    clang)
      CC=clang build clang --buildtype=release && run clang --suite unit --suite channel ||
        failed_builds=$((failed_builds + 1)) ;;
    semaphore) # where somebody waits
      build semaphore --buildtype=debugoptimized -Dwait=semaphore &&
        run semaphore hotpath region ring sync wire channel queue rpc set share watch ||
        failed_builds=$((failed_builds + 1)) ;;
    asan)
      build asan --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false &&
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 run asan --suite unit --suite channel --suite cli ||
        failed_builds=$((failed_builds + 1)) ;;
    tsan)
      CC=clang build tsan --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false &&
        TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 run tsan --suite unit --suite channel ||
        failed_builds=$((failed_builds + 1)) ;;
    asan-clang)
      [ -n "${LEAT_FULL:-}" ] || targets=$unit
      CC=clang build asan-clang --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false &&
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 run asan-clang --suite unit ${LEAT_FULL:+--suite channel} ||
        failed_builds=$((failed_builds + 1))
      targets= ;;
    tsan-gcc)
      [ -n "${LEAT_FULL:-}" ] || targets=$unit
      build tsan-gcc --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false &&
        TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 run tsan-gcc --suite unit ${LEAT_FULL:+--suite channel} ||
        failed_builds=$((failed_builds + 1))
      targets= ;;
    i386)
      cross i386 i686-linux-gnu x86 "" i386-linux-gnu && run i386 --suite unit || failed_builds=$((failed_builds + 1)) ;;
    aarch64)
      cross arm64 aarch64-linux-gnu aarch64 "exe_wrapper = ['qemu-aarch64-static', '-L', '/usr/aarch64-linux-gnu']" aarch64-linux-gnu &&
        run arm64 --suite unit || failed_builds=$((failed_builds + 1)) ;;
    fuzz) fuzz ;;
    interop)
      build gcc --buildtype=debugoptimized && build next --buildtype=debugoptimized -Dnext=true &&
        cross i386 i686-linux-gnu x86 "" i386-linux-gnu && interop ||
        failed_builds=$((failed_builds + 1)) ;;
  esac
done

step "all"
python3 - "$log" "$failed_builds" <<'P'
import json, re, sys
ok = bad = skipped = 0
points = states = kills = explored = mutants = inputs = 0
both_ways = []
trusted = {}
lines = []
for line in open(sys.argv[1]):
    t = json.loads(line)
    text = t.get("stdout", "")
    good = len(re.findall(r"^ok ", text, re.M))
    no = len(re.findall(r"^not ok ", text, re.M))
    plan = re.search(r"^1\.\.(\d+)", text, re.M)
    if t["result"] == "SKIP":
        pass  # says why below
    elif t["result"] in ("OK", "EXPECTEDFAIL") and not no and plan and int(plan.group(1)) == good:
        pass
    elif not no:
        no = 1  # it died, or did not run to its end
        lines.append(f"{t['name']}: {t['result']}")
    for m in re.findall(r"^not ok .*", text, re.M):
        lines.append(f"{t['name']}: {m}")
    for m in re.findall(r"# SKIP (.*)", text + (t.get("stderr") or "")):
        skipped += 1
        print(f"skipped in {t['name']}: {m}")
    ok += good
    bad += no
    both = text + (t.get("stderr") or "")
    for a, b in re.findall(r"# POINTS (\d+) STATES (\d+)", both):
        points += int(a)
        states += int(b)
    kills += sum(map(int, re.findall(r"# (\d+) kills, \d+ messages", both)))
    kills += sum(sum(map(int, m)) for m in re.findall(r"# killed (\d+) publishers, (\d+) subscribers, (\d+) brokers", both))
    for thing, what in re.findall(r"^# TRUST (\d+) (.*)", both, re.M):
        trusted.setdefault(int(thing), {}).setdefault(re.sub(r"[\d.,]+", "", what), what)  # of the first build that says it
    inputs += sum(map(int, re.findall(r"fuzz_\w+: (\d+) inputs", text)))
    if " with the broker of " in t["name"]:
        both_ways.append(t["result"] == "OK")
    explored += sum(map(int, re.findall(r"^ok .*messages, (\d+) states, \d+ runs\)", text, re.M)))
    mutants += len(re.findall(r"^ok .*: found \(", text, re.M))
bad += int(sys.argv[2])
for l in lines:
    print("FAILED " + l)
if int(sys.argv[2]):
    print(f"FAILED: {sys.argv[2]} suites were not built or run")
if points:
    print(f"killed at {points} instructions ({states} distinct states of shared memory), {kills} more kills at random")
if explored:
    print(f"explored {explored} states of the ring's code; {mutants} mutants of it were found")
if both_ways:
    trusted[2] = {0: f"{sum(both_ways)} of {len(both_ways)} suites pass with the broker of a neighbouring version, both ways"}
if points:
    trusted[6] = {0: f"killed at {points} instructions, and {kills} times at random: the others go on"}
if inputs:
    trusted[12] = {0: f"{inputs} inputs to six parsers, under ASan and UBSan"}
things = ["restart under load", "neighbouring versions", "nonsense in shared memory", "what is cut or cannot be closed", "what is read-only",
          "killed anywhere", "stopped is not dead", "floods of descriptors", "fairness", "half-sent and slow", "whatever can fail",
          "parsers", "who is who", "tickets", "what lies in the way"]
for n, thing in enumerate(things, 1):
    for what in trusted.get(n, {0: "not tried in this run"}).values() if trusted else []:
        print(f"{n:2} {thing}: {what}")
print(f"{ok} passed, {bad} failed, {skipped} skipped")
sys.exit(bad != 0 or ok == 0)
P
