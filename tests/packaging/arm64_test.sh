#!/usr/bin/env bash
# Cross-builds fl-client for arm64 and lets it train two rounds under qemu for this machine's aggregator, over TLS.
#   arm64_test.sh BUILD         BUILD holds bin/fl and bin/fl-aggregator; the cross build goes to BUILD/arm64 and is kept
# The first time takes long: it fetches a sysroot (240 MB) and compiles LibTorch's headers. Needs root or sudo for what is missing.
set -euo pipefail
export LC_ALL=C

build=$(realpath "$1")
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'kill "$aggregator" 2>/dev/null || true; rm -rf "$work"' EXIT
aggregator=

say() { printf 'arm64_test: %s\n' "$*"; }
fail() { printf 'arm64_test: FAILED: %s\n' "$*" >&2; exit 1; }

emulator() {
  local name
  for name in qemu-aarch64-static qemu-aarch64; do
    if command -v "$name"; then return; fi
  done
  local -a as_root=()
  if ((EUID != 0)); then as_root=(sudo); fi
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends qemu-user-static < /dev/null > "$work/apt.log" 2>&1 ||
    fail "no emulator, and apt-get could not install qemu-user-static: $(tail -n 1 "$work/apt.log")"
  command -v qemu-aarch64-static
}

configure() {
  "$build/bin/fl" pki init "$work/pki" > /dev/null
  "$build/bin/fl" pki issue server aggregator --host localhost --pki "$work/pki" > /dev/null
  "$build/bin/fl" pki issue client device --pki "$work/pki" > /dev/null
  local data='"data": {"name": "synthetic", "examples": 200, "test_examples": 50, "input": [1, 8, 8], "classes": 4}'
  cat > "$work/server.json" <<JSON
{"experiment": {"name": "arm64", "seed": 1, "rounds": 2, $data, "partition": {"name": "iid", "clients": 1},
   "model": {"name": "spec", "stages": [{"conv": {"out": 4, "kernel": 3}}, {"relu": {}}, {"flatten": {}}, {"linear": {"out": "classes"}}]},
   "trainer": {"name": "sgd", "epochs": 1, "batch_size": 10, "learning_rate": 0.05}, "round": {"cohort": 1}},
 "folder": "run", "listen": "127.0.0.1:0", "health": null, "clients": {"minimum": 1},
 "tls": {"certificate": "pki/issued/aggregator/cert.pem", "key": "pki/issued/aggregator/key.pem", "authority": "pki/ca.pem", "revocations": "pki/crl.pem"}}
JSON
  cat > "$work/client.json.in" <<JSON
{"server": "@ADDRESS@", "server_name": "localhost", $data, "state": "state", "exit_when_finished": true,
 "tls": {"certificate": "pki/issued/device/cert.pem", "key": "pki/issued/device/key.pem", "authority": "pki/ca.pem", "revocations": ""}}
JSON
}

# The aggregator took a free port and says which.
address() {
  grep -m1 -oE '127\.0\.0\.1:[0-9]+' < <(timeout 60 tail -n +1 -F "$work/aggregator.log" 2> /dev/null)
}

"$tree/third_party/arm64/build" "$build/arm64"
client=$build/arm64/bin/fl-client
file_type=$(od -An -tx1 -j18 -N2 "$client")
# ELF's e_machine: 183 is AArch64.
[[ $file_type == ' b7 00' ]] || fail "$client is for another machine:$file_type"
qemu=$(emulator)
configure
"$build/bin/fl-aggregator" "$work/server.json" > "$work/aggregator.log" 2>&1 &
aggregator=$!
listening=$(address) || fail "the aggregator does not listen: $(< "$work/aggregator.log")"
sed "s/@ADDRESS@/$listening/" "$work/client.json.in" > "$work/client.json"
say "training under $qemu"
timeout 300 "$qemu" -L "${FL_SYSROOT:-$build/arm64/sysroot}" "$client" "$work/client.json" > "$work/client.log" 2>&1 ||
  { tail -n 20 "$work"/*.log >&2; fail "the client ended with an error"; }
wait "$aggregator" || { tail -n 20 "$work"/*.log >&2; fail "the aggregator ended with an error"; }
grep -q '"accepted":1' "$work/run/metrics.jsonl" || { cat "$work/run/metrics.jsonl" >&2; fail "no update was accepted"; }
say "passed: $(grep -m1 '^model' "$work/aggregator.log")"
