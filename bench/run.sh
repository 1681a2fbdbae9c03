#!/bin/sh
# Install the peers, build, measure, and write tables (JSON, Markdown) and plots (SVG, PNG) to bench/out.
#   sh bench/run.sh            everything, at most 30 minutes
#   sh bench/run.sh --quick    the main rows, at most 3 minutes
# Further options go to the bench: --rows TEXT,.. --peers TEXT,.. --rounds N --span-ms N --list --help
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
sh .ci/setup bench
if [ ! -f build/bench/build.ninja ]; then
  meson setup build/bench --buildtype=release -Dbench=true -Dtests=false > bench.log || { cat bench.log; exit 1; }
  rm -f bench.log
fi
ninja -C build/bench > build/bench/log || { tail -n 40 build/bench/log; exit 1; }
mkdir -p bench/out
failed=0
export LEAT_LEATD="$here/build/bench/daemon/leatd" LEAT_CMD="$here/build/bench/clients/leat"
build/bench/bench/bench --out bench/out/cells.jsonl "$@" || failed=1
case " $* " in *" --list "* | *" --help "*) exit 0 ;; esac
python3 bench/report.py bench/out
exit $failed
