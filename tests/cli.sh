#!/bin/bash
# The command, as a person at a terminal uses it: TAP. Needs LEAT_CMD, LEAT_LEATD, LEAT_SRC.
set -u
leat() { "$LEAT_CMD" "$@"; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/leat-cli.XXXXXX")
export LEAT_BROKER=$dir/broker.sock
unset LEAT_AUTOSTART XDG_RUNTIME_DIR
n=0
bad=0
tests=()
broker=
cleanup() {
  jobs -p | xargs -r kill 2>/dev/null
  wait 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT

t() { tests+=("$1"); }
want() { # want CODE COMMAND...: the exit code
  local code=$1 got; shift
  "$@"; got=$?
  [ "$got" = "$code" ] || { echo "# '$*' exited $got instead of $code"; return 1; }
}
name() { echo "cli/$RANDOM$RANDOM$RANDOM"; }

"$LEAT_LEATD" --domain "$LEAT_BROKER" --ready-fd 8 8>"$dir/ready" & broker=$!
for _ in $(seq 500); do [ -s "$dir/ready" ] && break; sleep 0.01; done

round_trip() { # round_trip FILE FIRST PUBARGS SUBARGS
  local x; x=$(name)
  if [ "$2" = sub ]; then
    leat sub $4 --until-ended --from oldest --timeout 20 "$x" > "$dir/G" & local s=$!
    leat pub --wait-subscribers 1 --timeout 20 $3 "$x" < "$1" || return 1
  else
    leat pub --wait-subscribers 1 --timeout 20 $3 "$x" < "$1" & local s=$!
    leat sub $4 --until-ended --from oldest --timeout 20 "$x" > "$dir/G" || return 1
  fi
  wait $s || return 1
  cmp "$1" "$dir/G"
}

t a_file_is_identical_after_the_channel_whatever_is_in_it_and_whoever_starts
a_file_is_identical_after_the_channel_whatever_is_in_it_and_whoever_starts() {
  : > "$dir/empty"
  printf '\0' > "$dir/zero"
  printf '\xff\xfe\x80\n\0\n\nx' > "$dir/odd"
  head -c 3000001 /dev/urandom > "$dir/big"
  head -c 65536 /dev/zero > "$dir/frame"
  for f in empty zero odd big frame; do
    for first in pub sub; do
      round_trip "$dir/$f" $first "--frame 65536" --raw || { echo "# $f, $first first"; return 1; }
    done
  done
  round_trip "$dir/big" sub "--frame 1-9000" --raw
}

t lines_go_through_as_lines
lines_go_through_as_lines() {
  printf 'one\n\ntwo \xc3\xa4\n' > "$dir/lines"
  round_trip "$dir/lines" pub "" --lines && round_trip "$dir/lines" sub "" ""
}

t length_prefixed_goes_through_as_it_is
length_prefixed_goes_through_as_it_is() {
  printf '\5\0\0\0hello\0\0\0\0\2\0\0\0\n\0' > "$dir/lp"
  round_trip "$dir/lp" pub --length-prefixed --length-prefixed || return 1
  printf '\5\0\0\0hell' | want 1 leat pub --length-prefixed "$(name)" 2>/dev/null
}

t history_of_an_exited_publisher_is_there_for_who_asks
history_of_an_exited_publisher_is_there_for_who_asks() {
  local x; x=$(name)
  leat pub --message hello "$x" || return 1
  for i in $(seq 12); do leat pub --message "again $i" "$x" || return 1; done
  [ "$(leat sub --from oldest --until-ended --timeout 5 "$x" | head -n 1)" = hello ] || return 1
  [ "$(leat sub --from oldest --count 2 --timeout 5 "$x" | tail -n 1)" = "again 1" ] || return 1
  want 4 leat sub --count 1 --timeout 0.05 "$x" 2>/dev/null
}

t count_rate_and_message
count_rate_and_message() {
  local x start; x=$(name)
  start=$(date +%s%N)
  leat pub --message m --count 20 --rate 100 "$x" || return 1
  [ $(($(date +%s%N) - start)) -gt 150000000 ] || { echo "# too quick"; return 1; }
  [ "$(leat sub --from oldest --until-ended "$x" | wc -l)" = 20 ]
}

t ls_and_stat_tell_the_truth_in_json_and_in_words
ls_and_stat_tell_the_truth_in_json_and_in_words() {
  local x; x=$(name)
  leat pub --message m --count 3 "$x" || return 1
  leat ls --json "$x" | python3 -c "
import json, sys
l = json.load(sys.stdin); assert len(l) == 1 and l[0]['name'] == '$x' and l[0]['draining'] == 1" || return 1
  leat stat --json "$x" | python3 -c "
import json, sys
s = json.load(sys.stdin); assert s['sent'] == 3 and s['peers'][0]['role'] == 'ended', s" || return 1
  leat stat "$x" | grep -q '3 messages' || return 1
  leat ls | grep -q "^$x " || return 1
  want 1 leat stat no/such/channel 2>"$dir/err" || return 1
  grep -q 'no/such/channel' "$dir/err"
}

t who_lists_the_clients
who_lists_the_clients() {
  local x; x=$(name)
  "$LEAT_CMD" sub "$x" > /dev/null & local s=$!
  for _ in $(seq 500); do leat stat "$x" 2>/dev/null | grep -q subscriber && break; sleep 0.01; done
  leat who --json | python3 -c "
import json, sys
one = [c for c in json.load(sys.stdin) if c['pid'] == $s]
assert len(one) == 1 and one[0]['subscribers'] == 1 and one[0]['program'] == 'leat' and one[0]['lag'] == 0, one" || return 1
  kill -STOP $s
  leat pub --message "$(printf '%0992d' 0)" --count 3 "$x" || return 1
  leat who --json | python3 -c "
import json, sys
assert [c['lag'] for c in json.load(sys.stdin) if c['pid'] == $s] == [3000]" || return 1
  leat who | grep "^ *[0-9]* leat  *$s " | grep -q ' 3000$' || return 1
  kill -CONT $s
  leat who | grep -q "^ *[0-9]* leat  *$s " || return 1
  kill $s; wait $s
  want 2 leat who x 2>/dev/null
}

t metrics_are_openmetrics
metrics_are_openmetrics() {
  local x; x=$(name)
  leat pub --message m --count 3 "$x/a" || return 1
  (exec -a 'odd"name\' "$LEAT_CMD" sub --from oldest "$x/a" > "$dir/out") & local s=$!
  for _ in $(seq 500); do [ -s "$dir/out" ] && break; sleep 0.01; done
  leat metrics "$x/" > "$dir/metrics" || return 1
  kill $s; wait $s
  python3 - "$dir/metrics" "$x/a" <<'P' || return 1
import re, sys
lines = open(sys.argv[1]).read().split("\n")
name = sys.argv[2]
assert lines[-2:] == ["# EOF", ""], lines[-3:]
family, seen, values = None, set(), {}
for line in lines[:-2]:
    if line.startswith("# TYPE "):
        family, kind = line.split()[2:]
        assert family not in seen
        seen.add(family)
        continue
    if line.startswith("# "):
        assert line.split()[2] == family
        continue
    m = re.fullmatch(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)*\})? (\d+)', line)
    assert m, line
    assert m.group(1) == family + ("_total" if kind == "counter" else ""), line
    values[m.group(1), m.group(2)] = int(m.group(3))
def one(metric):
    got = [v for (n, l), v in values.items() if n == metric and f'channel="{name}"' in l]
    assert len(got) == 1, (metric, got)
    return got[0]
assert one("leat_publisher_messages_total") == 3 and one("leat_subscriber_messages_total") == 3
assert one("leat_channel_subscribers") == 1 and one("leat_channel_ended_rings") == 1
assert values["leat_clients", None] >= 2
P
  leat metrics --json "$x/" | python3 -c "
import json, sys
m = json.load(sys.stdin); assert m['clients'] >= 1 and m['channels'][0]['sent'] == 3, m"
}

t ls_watch_tells_what_comes_changes_and_goes
ls_watch_tells_what_comes_changes_and_goes() {
  local x; x=$(name)
  leat pub --message m "$x/1" || return 1
  "$LEAT_CMD" ls --watch --json "$x/" > "$dir/events" & local w=$!
  for _ in $(seq 500); do grep -q synced "$dir/events" && break; sleep 0.01; done
  leat pub --message m "$x/2" || return 1
  leat pub --message m "${x}elsewhere" || return 1
  leat rm "$x/2" || return 1
  for _ in $(seq 500); do grep -q gone "$dir/events" && break; sleep 0.01; done
  kill $w; wait $w || return 1
  python3 -c "
import json, sys
got = [(e['event'], e.get('name', '')[len('$x/'):], e.get('publishers')) for e in map(json.loads, sys.stdin)]
want = [('came', '1', 0), ('synced', '', None), ('came', '2', 1), ('changed', '2', 0), ('gone', '2', 0)]
assert got == want, got" < "$dir/events" || return 1
  "$LEAT_CMD" ls --watch "$x/" > "$dir/events" & w=$!
  for _ in $(seq 500); do grep -q "^came  *$x/1 " "$dir/events" && break; sleep 0.01; done
  kill $w; wait $w || return 1
  [ "$(sed -n 1p "$dir/events" | xargs)" = "EVENT NAME PUBS SUBS" ] && [ "$(wc -l < "$dir/events")" = 2 ]
}

t sub_takes_a_pattern
sub_takes_a_pattern() {
  local x; x=$(name)
  leat pub --message before "$x/old" || return 1
  "$LEAT_CMD" sub --names --timeout 20 --count 6 "$x/*" > "$dir/out" & local s=$!
  for _ in $(seq 500); do leat stat "$x/old" | grep -q subscriber && break; sleep 0.01; done
  seq 3 | leat pub "$x/a" || return 1        # nobody waits for us: what came before we knew of it is there, too
  seq 4 5 | leat pub "$x/b/c" || return 1
  leat pub --message elsewhere "${x}b" || return 1
  leat pub --message again "$x/old" || return 1
  wait $s || return 1
  sort "$dir/out" > "$dir/sorted"
  printf '%s\t%s\n' "$x/a" 1 "$x/a" 2 "$x/a" 3 "$x/b/c" 4 "$x/b/c" 5 "$x/old" again | sort | cmp - "$dir/sorted" || return 1
  # All there is, to its end.
  leat sub --from oldest --until-ended --timeout 20 "$x/*" > "$dir/out" || return 1
  [ "$(wc -l < "$dir/out")" = 7 ] || { cat "$dir/out"; return 1; }
  want 4 leat sub --timeout 0.1 "$x/none/*" || return 1
  want 2 leat sub --names --raw "$x/*" 2>/dev/null || return 1
  # It lets go of what has ended.
  "$LEAT_CMD" sub "$x/*" > "$dir/out" & s=$!
  for _ in $(seq 500); do leat stat "$x/a" | grep -q subscriber && break; sleep 0.01; done
  leat pub --message last "$x/a" || return 1
  for _ in $(seq 500); do leat stat "$x/a" 2>/dev/null | grep -q subscriber || break; sleep 0.01; done
  leat stat "$x/a" 2>/dev/null | grep -q subscriber && return 1
  kill $s; wait $s
  grep -qx last "$dir/out"
}

t ping_measures_the_broker_and_a_channel
ping_measures_the_broker_and_a_channel() {
  local x; x=$(name)
  leat ping --count 3 --json | python3 -c "import json,sys; assert json.load(sys.stdin)['p50_ns'] > 0" || return 1
  leat ping --echo "$x" & local e=$!
  leat ping --count 100 "$x" | grep -q 'one way' || return 1
  wait $e
}

t lost_messages_are_told_by_the_exit_code
lost_messages_are_told_by_the_exit_code() {
  local x; x=$(name)
  # Observing from the beginning of a ring that is overwritten before anything is read.
  (leat sub --observe --until-ended --timeout 20 "$x" >"$dir/out" 2>"$dir/err"; echo $? >"$dir/code") & local s=$!
  for _ in $(seq 500); do leat stat "$x" >/dev/null 2>&1 && break; sleep 0.01; done
  kill -STOP "$(leat stat --json "$x" | python3 -c "
import json, sys
print([p['pid'] for p in json.load(sys.stdin)['peers'] if p['role'] == 'observer'][0])")"
  seq 200000 | leat pub --capacity 4096 "$x" || return 1
  pkill -CONT -P $s
  wait $s
  [ "$(cat "$dir/code")" = 5 ] && grep -q 'lost' "$dir/err"
}

t usage_errors_exit_2_and_say_what_is_wrong
usage_errors_exit_2_and_say_what_is_wrong() {
  for args in "" "nonsense" "pub" "pub a b" "pub --nope a" "pub --frame 0 a" "pub --frame 9-5 a" \
      "pub --count x a" "sub --from never a" "sub --timeout -1 a" "sub --raw --lines a" "ping a b" "ls a b" \
      "stat" "completion fish" "ping --count 0" "queue" "get" "get a b" "get --timeout x a" "set" "set a b c" "rm" "queue peek" "queue push" "queue take" \
      "queue take --raw a cat" "queue take --max-deliveries 9G a" "queue push --frame 9 a" "call" "call a b c" "call --timeout x a b" "serve" "serve a" "serve --max-reply x a cat" "region" "region ls a b" "region cat" "region share" "region share --size x a"; do
    want 2 leat $args 2>"$dir/err" >/dev/null || return 1
    [ -s "$dir/err" ] || { echo "# leat $args says nothing"; return 1; }
  done
  want 1 leat pub --message m 'bad name' 2>"$dir/err" || return 1
  grep -q 'bad name' "$dir/err" || return 1
  want 2 "$LEAT_LEATD" --nope 2>/dev/null || return 1
  want 2 "$LEAT_LEATD" --linger soon 2>/dev/null
}

t without_a_broker_it_exits_3_and_says_what_to_run
without_a_broker_it_exits_3_and_says_what_to_run() {
  for c in "pub --message m a" "sub a" ls "stat a" ping; do
    want 3 leat $c --domain "$dir/none.sock" 2>"$dir/err" || return 1
    grep -q "run leatd --domain $dir/none.sock" "$dir/err" || { cat "$dir/err"; return 1; }
    [ "$(wc -l < "$dir/err")" = 1 ] || return 1
  done
  LEAT_BROKER= XDG_RUNTIME_DIR=$dir LEAT_AUTOSTART=0 want 3 leat ls 2>"$dir/err" || return 1
  grep -q "run leatd" "$dir/err"
}

t a_user_without_a_runtime_directory_is_told_about_LEAT_BROKER
a_user_without_a_runtime_directory_is_told_about_LEAT_BROKER() {
  [ "$(id -u)" = 0 ] || { echo "# SKIP needs root to become another user"; return 0; }
  # A copy where that user can run it.
  local d=$dir/open; mkdir -p "$d"; chmod 755 "$dir" "$d"
  cp "$LEAT_CMD" "$LEAT_LEATD" "$LEAT_LEATD-worker" "$(dirname "$LEAT_CMD")"/../lib/libleat.so.0 "$d"
  export LD_LIBRARY_PATH=$d
  want 3 setpriv --reuid 65534 --clear-groups env -u LEAT_BROKER -u XDG_RUNTIME_DIR "$d/leat" ls 2>"$dir/err" &&
    grep -q 'LEAT_BROKER' "$dir/err" &&
    want 1 setpriv --reuid 65534 --clear-groups env -u LEAT_BROKER -u XDG_RUNTIME_DIR "$d/leatd" 2>"$dir/err" &&
    grep -q 'LEAT_BROKER' "$dir/err"
  local r=$?
  unset LD_LIBRARY_PATH
  return $r
}

t a_second_broker_for_the_same_domain_refuses
a_second_broker_for_the_same_domain_refuses() {
  want 1 "$LEAT_LEATD" --domain "$LEAT_BROKER" 2>"$dir/err" && grep -q 'another leatd' "$dir/err"
}

t without_an_output_it_fails
without_an_output_it_fails() {
  local c
  for c in ls who quota metrics doctor help --version "quota --json" "completion bash"; do
    # shellcheck disable=SC2086
    want 1 leat $c >&- 2>"$dir/err" && [ -s "$dir/err" ] && want 1 leat $c >/dev/full 2>"$dir/err" && grep -q 'No space left' "$dir/err" ||
      { echo "$c"; cat "$dir/err"; return 1; }
  done
}

t without_room_for_another_process_it_serves
without_room_for_another_process_it_serves() {
  [ "$(id -u)" = 0 ] || { echo "# SKIP needs root: to be a user of few processes"; return 0; }
  local d=$dir/few uid=$((61000 + RANDOM % 3000)) few r
  mkdir -p "$d" && cp "$LEAT_LEATD" "$LEAT_LEATD-worker" "$LEAT_CMD" "$LEAT_BUILD/lib/libleat.so.0" "$d/" && chmod 755 "$dir" "$d" &&
    mkdir "$d/run" && chown $uid "$d/run" || return 1
  setpriv --reuid $uid --clear-groups prlimit --nproc=2 "$d/leatd" --domain "$d/run/b.sock" & few=$!
  for _ in $(seq 500); do [ -S "$d/run/b.sock" ] && break; sleep 0.01; done
  export LD_LIBRARY_PATH=$d
  want 0 setpriv --reuid $uid --clear-groups env LEAT_BROKER="$d/run/b.sock" "$d/leat" ping > "$dir/out" &&
    echo hello | want 1 setpriv --reuid $uid --clear-groups env LEAT_BROKER="$d/run/b.sock" "$d/leat" pub x 2> "$dir/err" &&
    grep -q 'fork: Resource temporarily unavailable' "$dir/err"
  r=$?
  [ $r = 0 ] || cat "$dir/out" "$dir/err"
  unset LD_LIBRARY_PATH
  kill $few; wait $few
  rm -rf "$d"
  return $r
}

t a_limit_on_the_size_of_files_is_told
a_limit_on_the_size_of_files_is_told() {
  want 1 sh -c 'ulimit -f 64; exec "$LEAT_LEATD" --domain "$0"' "$dir/small.sock" 2>"$dir/err" && grep -q 'File too large' "$dir/err"
}

t the_units_are_hardened
the_units_are_hardened() {
  command -v systemd-analyze > /dev/null || { echo "# SKIP no systemd-analyze"; return 0; }
  # In tenths: what leatd(8) says.
  systemd-analyze security --offline=true --threshold=10 "$LEAT_BUILD/daemon/leatd.service" > "$dir/out" 2>&1 || { tail -3 "$dir/out"; return 1; }
}

t under_the_units_filter_of_system_calls_it_serves
under_the_units_filter_of_system_calls_it_serves() {
  command -v systemd-analyze > /dev/null || { echo "# SKIP no systemd-analyze"; return 0; }
  ldd "$LEAT_LEATD-worker" | grep -q 'lib[at]san' && { echo "# SKIP sanitizers make calls of their own"; return 0; }
  local d=$dir/filter unit x b i worker r=0
  for unit in leatd.service leatd.user.service; do
    rm -rf "$d"; mkdir -p "$d/policy.d"; echo '[*]' > "$d/leatd.conf"
    leat ticket keygen --keys "$d/keys" && printf '[tickets]\nkeys = %s\n' "$d/keys" >> "$d/leatd.conf" || return 1
    printf '[x]\npublish = user:root, ticket\n' > "$d/policy.d/x.conf"
    python3 "$LEAT_SRC/tests/filtered.py" "$LEAT_BUILD/daemon/$unit" "$LEAT_LEATD" --domain "$d/b.sock" --config "$d/leatd.conf" --linger 1 2> "$dir/err" & b=$!
    for i in $(seq 1000); do [ -S "$d/b.sock" ] && break; sleep 0.01; done
    # Names, a region, which the child has to look at; another worker; other rules; the books; who has gone.
    head -c 5000 /dev/urandom > "$d/file"
    LEAT_BROKER=$d/b.sock LEAT_TICKET=$(leat ticket mint --keys "$d/keys" --prefix x --rights publish) leat pub --message hello x || r=1
    "$LEAT_CMD" region share --domain "$d/b.sock" --file "$d/file" x/file > /dev/null & x=$!
    for i in $(seq 500); do leat region ls --domain "$d/b.sock" | grep -q x/file && break; sleep 0.01; done
    worker=$(pgrep -P $b -x leatd-worker)
    kill -USR1 $b
    leat region cat --count 5000 --domain "$d/b.sock" x/file | cmp - "$d/file" || r=1
    for i in $(seq 500); do [ "$(pgrep -P $b -x leatd-worker)" != "$worker" ] && break; sleep 0.01; done
    echo '[limits]' >> "$d/leatd.conf"; kill -HUP $b
    for i in $(seq 500); do grep -q ' reloaded ' "$dir/err" && break; sleep 0.01; done
    grep -q ' reloaded ' "$dir/err" || r=1
    [ "$(leat sub --from oldest --count 1 --timeout 20 --domain "$d/b.sock" x)" = hello ] && leat quota --domain "$d/b.sock" > /dev/null || r=1
    kill $x; wait $x
    for i in $(seq 500); do leat region ls --domain "$d/b.sock" | grep -q x/file || break; sleep 0.01; done
    kill $b; wait $b || r=1
    [ $r = 0 ] || { echo "# $unit"; cat "$dir/err"; return 1; }
  done
}

t what_lies_in_the_brokers_way_is_not_touched
what_lies_in_the_brokers_way_is_not_touched() {
  local d=$dir/way p kind place before n=0
  for kind in file symlink dangling hardlink fifo directory device; do
    for place in broker.sock broker.sock.lock; do
      rm -rf "$d"; mkdir -p "$d/sub"; echo precious > "$d/victim"; chmod 640 "$d/victim"; touch -d 2020-01-01 "$d/victim"
      p=$d/sub/$place
      case $kind in
        file) echo mine > "$p" ;;
        symlink) ln -s "$d/victim" "$p" ;;
        dangling) ln -s "$d/nowhere" "$p" ;;
        hardlink) ln "$d/victim" "$p" ;;
        fifo) mkfifo "$p" ;;
        directory) mkdir "$p" ;;
        device) mknod "$p" c 1 3 2>/dev/null || continue ;;
      esac
      [ $kind$place = filebroker.sock.lock ] && continue # its own kind
      before=$(stat -c '%a %s %Y %h' "$d/victim"; ls -l "$p")
      want 1 timeout 10 "$LEAT_LEATD" --domain "$d/sub/broker.sock" 2> "$dir/err" || { echo "# $kind as $place"; return 1; }
      [ "$before" = "$(stat -c '%a %s %Y %h' "$d/victim"; ls -l "$p")" ] && [ ! -e "$d/nowhere" ] || { echo "# $kind as $place was touched"; return 1; }
      grep -q "$d/sub" "$dir/err" || return 1
      n=$((n + 1))
    done
  done
  echo "# TRUST 15 $n things in the broker's way (links, pipes, others' files): none touched, each named"
  rm -rf "$d"; mkdir -p "$d"; chmod 777 "$d"
  want 1 "$LEAT_LEATD" --domain "$d/broker.sock" 2> "$dir/err" && grep -q "everybody can write" "$dir/err"
}

t a_socket_that_systemd_passes_is_served
a_socket_that_systemd_passes_is_served() {
  python3 - "$LEAT_LEATD" "$dir/passed.sock" "$dir/notify" <<'P' & local b=$!
import os, socket, sys
leatd, path, notify = sys.argv[1:]
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); n.bind(notify)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(path); s.listen(16)
if os.fork() == 0:
    open(notify + ".said", "wb").write(n.recv(100)); os._exit(0)
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=notify)
os.execv(leatd, ["leatd", "--linger", "1"])
P
  local i r=0
  for i in $(seq 500); do leat ls --domain "$dir/passed.sock" >/dev/null 2>&1 && break; sleep 0.01; done
  for i in $(seq 500); do [ -s "$dir/notify.said" ] && break; sleep 0.01; done
  grep -q READY=1 "$dir/notify.said" || r=1
  leat pub --message hello --domain "$dir/passed.sock" x && pkill -9 -P $b -x leatd-worker
  [ "$(leat sub --from oldest --count 1 --timeout 20 --domain "$dir/passed.sock" x)" = hello ] || r=1
  kill $b; wait $b || r=1
  [ -S "$dir/passed.sock" ] || { echo "# the socket was not leatd's to remove"; r=1; }
  return $r
}

t doctor_says_what_is_wrong_and_what_to_do
doctor_says_what_is_wrong_and_what_to_do() {
  want 0 leat doctor > "$dir/out" && grep -q "^ok    broker  *$LEAT_BROKER answers" "$dir/out" && grep -q "^ok    memfd" "$dir/out" || { cat "$dir/out"; return 1; }
  leat doctor --json | python3 -c 'import json, sys; a = json.load(sys.stdin); assert len(a) > 8 and all(x["verdict"] in ("ok", "note") for x in a), a' || return 1
  # What is not as it should be is said.
  (ulimit -n 64; ulimit -f 1024; want 0 leat doctor --domain "$dir/nobody") > "$dir/out" &&
    grep -q "^note  descriptors .*at most 64" "$dir/out" && grep -q "^note  fsize" "$dir/out" && grep -q "^note  broker .*run leatd" "$dir/out"
}

t quota_and_kick
quota_and_kick() {
  local x c p; x=$(name)
  "$LEAT_CMD" sub "$x" > /dev/null & p=$!
  for _ in $(seq 500); do leat stat "$x" >/dev/null 2>&1 && break; sleep 0.01; done
  leat quota --json | python3 -c 'import json, sys; a = json.load(sys.stdin); assert any(u["subscribers"]["used"] >= 1 and u["memory"]["limit"] is None for u in a), a' || return 1
  leat quota > "$dir/out" && grep -q "subscribers  *[1-9][0-9]*  *any" "$dir/out" || return 1
  c=$(leat who --json | python3 -c "import json, sys; print([w['client'] for w in json.load(sys.stdin) if w['pid'] == $p][0])")
  want 0 leat kick "$c" && want 1 leat kick "$c" 2> "$dir/err" && grep -q "no client $c" "$dir/err" &&
    want 2 leat kick me 2> "$dir/err" && want 2 leat kick 2>/dev/null || return 1
  ! leat who | grep -q "^ *$c " || return 1
  kill $p; wait $p 2>/dev/null
  return 0
}

t policy_says_which_line_decides
policy_says_which_line_decides() {
  mkdir -p "$dir/etc/policy.d"
  printf '[*]\nwatch = *\n' > "$dir/etc/leatd.conf"
  printf '[camera]\npublish = uid:1001\n\nsubscribe = *\n' > "$dir/etc/policy.d/camera.conf"
  local c="--config $dir/etc/leatd.conf"
  want 0 leat policy check $c &&
    want 0 leat policy explain $c uid:1002 subscribe camera/x > "$dir/out" && grep -q "camera.conf:4: is in this list" "$dir/out" &&
    want 3 leat policy explain $c 1002 publish camera/x > "$dir/out" && grep -q "may not publish camera/x: .*camera.conf:2: is not" "$dir/out" &&
    want 3 leat policy explain --json $c uid:7 create camera/x | python3 -c 'import json, sys; j = json.load(sys.stdin); assert j["may"] is False and j["file"] is None, j' &&
    want 2 leat policy explain $c uid:7 fly camera/x 2> "$dir/err" && grep -q "no verb" "$dir/err" &&
    want 1 leat policy explain $c no-such-user publish x 2> "$dir/err" && grep -q "no user" "$dir/err" &&
    want 2 leat policy explain $c uid:7 publish 2>/dev/null || return 1
  printf '[radio]\npublish = *\n' > "$dir/etc/policy.d/camera.conf"
  want 1 leat policy check $c 2> "$dir/err" && grep -q "camera.conf:2: \[radio\]: this file speaks for camera only" "$dir/err" || return 1
  want 3 leat policy explain $c uid:1001 publish camera/x 2>/dev/null > "$dir/out" && grep -q "this file is wrong" "$dir/out" || return 1
  echo nonsense > "$dir/etc/leatd.conf"
  want 1 leat policy check $c 2> "$dir/err" && grep -q "leatd.conf:1" "$dir/err" &&
    want 1 "$LEAT_LEATD" --domain "$dir/none2.sock" $c 2> "$dir/err" && grep -q "leatd.conf:1" "$dir/err" && [ ! -e "$dir/none2.sock" ]
}

t tickets_are_made_narrowed_and_shown
tickets_are_made_narrowed_and_shown() {
  local k=$dir/ticket.keys T N
  unset LEAT_TICKET
  want 1 leat ticket mint --keys "$k" --prefix camera/ --rights subscribe 2> "$dir/err" && grep -q "leat ticket keygen makes them" "$dir/err" &&
    want 0 leat ticket keygen --keys "$k" > "$dir/out" && grep -q "^key [0-9a-f]\{16\} is the newest" "$dir/out" || return 1
  T=$(leat ticket mint --keys "$k" --prefix camera/ --rights subscribe,create --ttl 2h) || return 1
  N=$(LEAT_TICKET=$T leat ticket narrow --prefix camera/left --rights subscribe --ttl 5m) || return 1
  echo "$N" | want 0 leat ticket show --keys "$k" - > "$dir/out" && grep -q "^prefix   camera/left$" "$dir/out" &&
    grep -q "^rights   subscribe$" "$dir/out" && grep -Eq "^expires  in (299|300) s$" "$dir/out" && grep -q "^seal     right$" "$dir/out" || return 1
  LEAT_TICKET=$T leat ticket show --json | python3 -c '
import json, sys
j = json.load(sys.stdin)
assert j["prefix"] == "camera" and j["rights"] == ["subscribe", "create"] and j["sealed"] is None, j
assert 7190e9 < j["expires_in_ns"] <= 7200e9, j' || return 1
  LEAT_TICKET=$(leat ticket mint --keys "$k" --prefix '*' --rights '*' --ttl forever) leat ticket show --keys "$k" > "$dir/out" || return 1
  grep -q "^expires  never$" "$dir/out" && grep -q "^prefix   \*$" "$dir/out" && grep -q "administer$" "$dir/out" || return 1
  export LEAT_TICKET=$N
  want 1 leat ticket narrow --rights create 2> "$dir/err" && grep -q "has not all of these rights" "$dir/err" &&
    want 1 leat ticket narrow --prefix camera 2> "$dir/err" && grep -q "not below" "$dir/err" &&
    want 2 leat ticket narrow 2>/dev/null && want 2 leat ticket narrow --ttl 5 2>/dev/null && want 2 leat ticket narrow --rights fly 2>/dev/null &&
    want 2 leat ticket mint --keys "$k" --rights subscribe 2>/dev/null && want 2 leat ticket mint --keys "$k" --prefix /x --rights subscribe 2>/dev/null &&
    want 2 leat ticket narrow --ttl forever 2>/dev/null && want 2 leat ticket show "$N" 2>/dev/null || return 1
  leat ticket keygen --keys "$k" --keep 0 > /dev/null
  want 3 leat ticket show --keys "$k" > "$dir/out" && grep -q "its key is not in force" "$dir/out" || return 1
  LEAT_TICKET=nonsense want 1 leat ticket show 2> "$dir/err" && grep -q "no ticket" "$dir/err" || return 1
  unset LEAT_TICKET
  want 2 leat ticket show 2>/dev/null
}

t a_value_that_is_set_is_there_to_get_until_the_next_or_rm
a_value_that_is_set_is_there_to_get_until_the_next_or_rm() {
  local x b r=0; x=$(name)
  "$LEAT_LEATD" --domain "$dir/state.sock" --linger 0 & b=$! # keeps no history
  for _ in $(seq 500); do leat ls --domain "$dir/state.sock" >/dev/null 2>&1 && break; sleep 0.01; done
  state() { local c=$1; shift; leat "$c" --domain "$dir/state.sock" "$@"; }
  want 4 state get "$x" 2> "$dir/err" && grep -q 'there is no value' "$dir/err" || r=1
  state set "$x" one && sleep 0.2 && [ "$(state get "$x")" = one ] || r=1
  printf 'two\nlines\n' | state set "$x" && [ "$(state get --raw "$x" | od -c)" = "$(printf 'two\nlines\n' | od -c)" ] || r=1
  head -c 3000000 /dev/urandom > "$dir/large"
  state set --file "$dir/large" "$x" && state get --raw "$x" | cmp - "$dir/large" || r=1
  [ "$(state get --json "$x" | python3 -c 'import json, sys; j = json.load(sys.stdin); print(j["size"], j["text"])')" = "3000000 None" ] || r=1
  state set "$x" '' && [ "$(state get "$x" | od -c)" = "$(echo | od -c)" ] || r=1
  (sleep 0.3; state set "$x/b" late) & want 0 state get --timeout 20 "$x/b" | grep -qx late || r=1
  state rm "$x" "$x/b" && want 4 state get "$x" 2>/dev/null && want 1 state rm "$x/c" 2> "$dir/err" || r=1
  grep -q "$x/c: there is no channel" "$dir/err" || r=1
  want 1 state set --file /no/such/file "$x" 2> "$dir/err" && grep -q '/no/such/file' "$dir/err" || r=1
  wait %% 2>/dev/null
  kill $b; wait $b
  return $r
}

completes() { # completes WORD...: what bash offers for the last of leat's words
  (. "$dir/bash"; COMP_WORDS=(leat "$@"); COMP_CWORD=$#; _leat; printf '%s\n' "${COMPREPLY[@]}")
}

t a_queue_keeps_what_nobody_took_and_each_job_is_done_once
a_queue_keeps_what_nobody_took_and_each_job_is_done_once() {
  local x p i r=0; x=$(name)
  "$LEAT_LEATD" --domain "$dir/short.sock" --linger 0 & local b=$! # keeps no history
  for _ in $(seq 500); do leat ls --domain "$dir/short.sock" >/dev/null 2>&1 && break; sleep 0.01; done
  seq 200 | leat queue push --domain "$dir/short.sock" --capacity 4096 --timeout 20 "$x" || r=1
  p=()
  for i in 1 2 3; do
    leat queue take --domain "$dir/short.sock" --timeout 0.5 "$x" > "$dir/out$i" 2>/dev/null & p+=($!)
  done
  for i in 0 1 2; do want 4 wait "${p[$i]}" || r=1; done
  kill $b; wait $b
  cat "$dir"/out[123] | sort -n | cmp - <(seq 200) && return $r
}

t a_job_whose_command_fails_is_done_again_and_at_last_set_aside
a_job_whose_command_fails_is_done_again_and_at_last_set_aside() {
  local x; x=$(name)
  leat sub --count 1 --timeout 20 "$x/dead" > "$dir/dead" & local s=$!
  for _ in $(seq 500); do leat stat "$x/dead" >/dev/null 2>&1 && break; sleep 0.01; done
  printf 'good\nbad\nslow\n' | leat queue push "$x" || return 1
  leat queue take --until-ended --timeout 20 --max-deliveries 3 --summary "$x" \
    sh -c 'read j; echo "$j $LEAT_DELIVERIES" >> "$0"; case $j in bad) exit 3;; slow) [ $LEAT_DELIVERIES -gt 1 ];; esac' \
    "$dir/did" 2> "$dir/err" || { cat "$dir/err"; return 1; }
  wait $s || return 1
  [ "$(cat "$dir/dead")" = bad ] || return 1
  sort "$dir/did" | cmp - <(printf '%s\n' 'bad 1' 'bad 2' 'bad 3' 'good 1' 'slow 1' 'slow 2') || { cat "$dir/did"; return 1; }
  grep -q '"acked": 2, "nacked": 4, "redelivered": 3, "dead": 1' "$dir/err" || { cat "$dir/err"; return 1; }
}

t a_worker_that_is_killed_loses_no_job
a_worker_that_is_killed_loses_no_job() {
  local x; x=$(name)
  seq 20 | leat queue push "$x" || return 1
  "$LEAT_CMD" queue take "$x" sh -c 'touch "$0"; exec sleep 60' "$dir/begun" & local w=$!
  for _ in $(seq 500); do [ -e "$dir/begun" ] && break; sleep 0.01; done
  local job; job=$(pgrep -P $w)
  kill -9 $w
  kill -9 $job
  wait $w 2>/dev/null
  leat queue take --until-ended --timeout 20 "$x" | sort -n | cmp - <(seq 20)
}

t a_queue_command_that_cannot_be_run_is_an_error_and_keeps_the_job
a_queue_command_that_cannot_be_run_is_an_error_and_keeps_the_job() {
  local x; x=$(name)
  leat queue push --message job "$x" || return 1
  want 1 leat queue take --timeout 20 "$x" /no/such/program 2> "$dir/err" || return 1
  grep -q '/no/such/program' "$dir/err" || return 1
  want 1 leat queue take --timeout 20 "$x" > /dev/full 2> "$dir/err" || return 1
  [ "$(leat queue take --count 1 --timeout 20 --length-prefixed "$x" | od -An -tu4 -N4 | tr -d ' ')" = 3 ] || return 1
  want 4 leat queue take --timeout 0.1 "$x" 2> /dev/null
}

t a_server_answers_with_what_its_command_writes
a_server_answers_with_what_its_command_writes() {
  local x s; x=$(name)
  want 4 leat call --timeout 0.1 "$x" hello 2> "$dir/err" || return 1
  grep -q 'no server' "$dir/err" || return 1
  leat serve --count 5 --max-reply 2000000 --summary "$x" \
    sh -c 'read -r w; case $w in bad) echo oops; exit 1;; big) seq 300000;; *) echo "$w" | tr a-z A-Z;; esac' 2> "$dir/sum" & s=$!
  [ "$(leat call "$x" hello)" = HELLO ] || return 1
  [ "$(echo from stdin | leat call --raw "$x")" = "FROM STDIN" ] || return 1
  want 1 leat call "$x" bad > "$dir/out" 2> "$dir/err" || return 1
  { grep -q oops "$dir/out" && grep -q 'Input/output error' "$dir/err"; } || return 1
  leat call --raw "$x" big | cmp - <(seq 300000) || return 1
  leat call --json "$x" json | grep -q '"text": "JSON' || return 1
  wait $s || return 1
  grep -q '"requests": 5, "replies": 5, "dropped": 0' "$dir/sum" || { cat "$dir/sum"; return 1; }
  want 4 leat serve --timeout 0.1 "$x" cat 2> /dev/null || return 1
  leat serve "$x" /no/such/program 2> "$dir/err" & s=$!
  want 1 leat call "$x" hello 2> "$dir/out" > /dev/null || return 1
  wait $s
  grep -q '/no/such/program' "$dir/err"
}

t a_region_is_shared_listed_and_written_out
a_region_is_shared_listed_and_written_out() {
  local x s i; x=$(name)
  seq 10000 > "$dir/in"
  "$LEAT_CMD" region share --file "$dir/in" --size 100000 "$x" & s=$!
  for i in $(seq 500); do leat region cat "$x" > "$dir/out" 2>/dev/null && break; sleep 0.01; done
  leat region cat --count "$(stat -c %s "$dir/in")" "$x" | cmp - "$dir/in" || return 1
  [ "$(stat -c %s "$dir/out")" = 102400 ] || return 1
  leat region ls cli/ | grep -q "^$x  *102400 read  *leat (pid $s)" || { leat region ls; return 1; }
  leat region ls --json | grep -q '"writable": false' || return 1
  want 1 leat region share --file "$dir/in" "$x" 2> "$dir/err" || return 1
  grep -q "shared by leat (pid $s)" "$dir/err" || return 1
  kill $s; wait $s || return 1
  want 1 leat region cat "$x" 2> "$dir/err" || return 1
  grep -q 'nobody shares' "$dir/err" || return 1
  want 0 leat region share --timeout 0.01 --writable "$x" < /dev/null
}

t help_lists_every_option_and_completions_know_them
help_lists_every_option_and_completions_know_them() {
  local c o
  leat completion bash > "$dir/bash" && bash -n "$dir/bash" || return 1
  leat completion zsh > "$dir/zsh" || return 1
  leat --help | sed -n 's/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p' > "$dir/commands"
  grep -q '^queue take$' "$dir/commands" || return 1
  while read -r c; do
    leat $c --help > "$dir/help" || return 1
    grep -q "^usage: leat $c" "$dir/help" || return 1
    for o in $(sed -n 's/^  \(--[a-z-]*\).*/\1/p' "$dir/help"); do
      completes $c "$o" | grep -qx -- "$o" || { echo "# $c $o: not in bash"; return 1; }
      grep "^	'$c[ ']" "$dir/zsh" | grep -q -- "$o" || { echo "# $c $o: not in zsh"; return 1; }
    done
  done < "$dir/commands"
  [ "$(completes que)" = queue ] && [ "$(completes queue '' | sort | xargs)" = "push take" ]
}

t it_ends_cleanly_on_sigterm
it_ends_cleanly_on_sigterm() {
  local x; x=$(name)
  "$LEAT_CMD" sub "$x" > "$dir/out" & local s=$!
  sleep 3 | "$LEAT_CMD" pub "$x" & local p=$!
  for _ in $(seq 500); do leat stat "$x" 2>/dev/null | grep -q 'subscriber' && break; sleep 0.01; done
  kill $s; wait $s || return 1
}

for tst in "${tests[@]}"; do
  n=$((n + 1))
  if "$tst"; then echo "ok $n - $tst"; else echo "not ok $n - $tst"; bad=1; fi
done

# At the end: the broker goes, and takes its files along.
kill $broker
wait $broker 2>/dev/null
n=$((n + 1))
if [ -e "$LEAT_BROKER" ] || [ -e "$LEAT_BROKER.lock" ]; then
  echo "not ok $n - a_stopped_broker_leaves_no_file"; bad=1
else
  echo "ok $n - a_stopped_broker_leaves_no_file"
fi
echo "1..$n"
exit $bad
