#!/bin/bash
# The library as the world sees it: symbols, headers, layers, an installed copy. TAP.
# Needs LEAT_BUILD, LEAT_SRC, LEAT_LEATD.
set -u
cd "$LEAT_SRC" || exit 1
so=$LEAT_BUILD/lib/libleat.so
dir=$(mktemp -d "${TMPDIR:-/tmp}/leat-api.XXXXXX")
trap 'rm -rf "$dir"' EXIT
n=0
bad=0
check() { # check SENTENCE COMMAND...
  n=$((n + 1))
  local what=$1; shift
  if "$@" > "$dir/out" 2>&1; then echo "ok $n - $what"; else
    echo "not ok $n - $what"; sed 's/^/# /' "$dir/out" | head -n 30; bad=1
  fi
}

declared() {
  python3 - <<'P'
import glob, re
for f in glob.glob("include/leat/*.h"):
    text = re.sub(r"/\*.*?\*/", "", open(f).read(), flags=re.S)
    text = re.sub(r"^#.*$", "", text, flags=re.M)
    for d in re.findall(r"LEAT_API[^;]*;", text):
        print(re.search(r"\b(leat_\w+)\s*\(", d).group(1))
P
}
exported() { nm -D --defined-only "$so" | awk '$2 ~ /[TDBR]/ {sub(/@.*/, "", $3); print $3}' | grep -v '^LEAT_' | sort -u; }
mapped() { sed -n 's/^\t\(leat_[a-z_]*\);$/\1/p' lib/leat.map | sort -u; }

same_symbols() {
  declared | sort -u > "$dir/declared"; exported > "$dir/exported"; mapped > "$dir/mapped"
  [ "$(wc -l < "$dir/declared")" -gt 40 ] && diff "$dir/declared" "$dir/exported" && diff "$dir/declared" "$dir/mapped"
}
only_libc() { readelf -d "$so" | grep NEEDED | grep -vE 'libc\.so\.6|ld-linux' && return 1; return 0; }
headers_alone() {
  for h in include/leat.h include/leat/*.h; do
    h=${h#include/}
    : > "$dir/h.c"
    [ "$h" = leat/uv.h ] && printf '#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n' > "$dir/h.c" # libuv's own cannot do without
    echo "#include <$h>" >> "$dir/h.c"; cp "$dir/h.c" "$dir/h.cc"
    for cc in gcc clang; do
      command -v $cc > /dev/null || continue
      $cc -std=c99 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only "$dir/h.c" || return 1
    done
    for cxx in g++ clang++; do
      command -v $cxx > /dev/null || continue
      $cxx -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only "$dir/h.cc" || return 1
    done
  done
}
# Who may include whom: downward only; the daemon never looks into rings or channels.
layers() {
  python3 - <<'P'
import glob, re, sys
order = ["base", "mem", "sync", "ring", "link", "channel"]
# link stands beside ring: neither knows the other.
allowed = {r: set(order[:i + 1]) for i, r in enumerate(order)}
allowed["link"] = {"base", "mem", "link"}
allowed["daemon"] = {"base", "mem", "sync", "link"}
bad = 0
for f in glob.glob("lib/*/*.[ch]") + glob.glob("daemon/*.[ch]") + glob.glob("clients/*.[ch]"):
    room = f.split("/")[1] if f.startswith("lib/") else f.split("/")[0]
    for inc in re.findall(r'#include "([a-z]+)/', open(f).read()):
        if room == "clients" or inc not in allowed[room]:
            print(f"{f} includes {inc}/"); bad = 1
sys.exit(bad)
P
}
silent() { ! grep -nE '\b(abort|exit|_exit|printf|fprintf|perror|puts|assert) *\(' lib/*/*.c | grep -vE 'static_assert|lib/channel/start.c.*_exit'; }
no_signals() { ! grep -nE '\b(signal|sigaction) *\(' lib/*/*.c | grep -v 'lib/channel/start.c.*signal(s, SIG_DFL)'; }
short_files() { ! wc -l lib/*/*.c daemon/*.c clients/*.c | awk '$2 != "total" && $1 > 600' | grep .; }
every_c_begins_with_what_it_is() {
  for f in lib/*/*.c daemon/*.c clients/*.c; do
    sed -n 2p "$f" | grep -q '^/\*' || { echo "$f"; return 1; }
  done
}

# A program built against the installed copy, by pkg-config, from any prefix.
installed() {
  DESTDIR= meson install -C "$LEAT_BUILD" --no-rebuild --quiet --destdir "$dir/root" || return 1
  local prefix pc
  prefix=$(meson introspect "$LEAT_BUILD" --buildoptions | python3 -c "
import json, sys
print(next(o['value'] for o in json.load(sys.stdin) if o['name'] == 'prefix'))")
  pc=$(dirname "$(find "$dir/root" -name leat.pc)")
  export PKG_CONFIG_PATH=$pc PKG_CONFIG_SYSROOT_DIR=$dir/root
  sed -n '/^```c/,/^```/p' README.md | sed '/^```/d' > "$dir/all.c"
  awk -v d="$dir" '/^#include <leat.h>/ {k++} {print > (d "/hello" k ".c")}' "$dir/all.c"
  for k in 1 2; do
    [ "$(grep -c . "$dir/hello$k.c")" -le 20 ] || { echo "hello$k has over 20 lines"; return 1; }
    cc -Wall -Wextra -Werror "$dir/hello$k.c" $(pkg-config --cflags --libs leat) -o "$dir/hello$k" || return 1
  done
  export LD_LIBRARY_PATH=$(dirname "$(find "$dir/root" -name libleat.so)")
  # Nothing is running: the first one starts a broker, the last one leaves it idle.
  export XDG_RUNTIME_DIR=$dir/run LEAT_LEATD=$dir/root$prefix/bin/leatd
  unset LEAT_BROKER
  mkdir -p "$XDG_RUNTIME_DIR"
  timeout 20 "$dir/hello1" || return 1
  [ "$(timeout 20 "$dir/hello2")" = "Hello, world" ] || return 1
  timeout 20 "$dir/hello2" > "$dir/got" & sub=$!
  timeout 20 "$dir/hello1" && wait $sub && [ "$(cat "$dir/got")" = "Hello, world" ] || return 1
  unset LD_LIBRARY_PATH
  pkill -f -- "--domain $XDG_RUNTIME_DIR/leat/broker.sock"
  return 0
}

check exported_symbols_are_what_the_headers_declare same_symbols
check the_library_needs_only_libc only_libc
check each_header_compiles_alone_as_c99_and_cxx17 headers_alone
check calls_go_downward_only layers
check the_library_never_prints_or_exits silent
check the_library_installs_no_signal_handler no_signals
check no_source_is_over_600_lines short_files
check every_source_says_what_it_is every_c_begins_with_what_it_is
check the_readmes_hello_world_works_against_an_installed_copy installed
echo "1..$n"
exit $bad
