#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/gpu/gpu_check.sh BUILD DRIVER DEVICES [STEP...]: the whole (or some steps) of tools/gpu-check's run, over the stand-in for the driver and in small, so
# that it cannot fail for its own sake where a GPU is. Every step must pass, and every kind of report be there.
set -euo pipefail

build=$1 driver=$2 devices=$3
shift 3
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
stage=$(mktemp -d "${TMPDIR:-/tmp}/tyer-gpu-check.XXXXXX")
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/bin" "$stage/exe" "$stage/tests" "$stage/scenario"
cp "$build/tools/tyerd/tyerd" "$build/tools/cli/tyer" "$build/tools/bench/tyer-bench" "$stage/bin/"
for name in gpu/kernel_check gpu/device_check gpu/refusal_check gpu/path_check gpu/embedded_check bench/gpu_load bench/gpu_threads scenario/probe; do
	ln -s "$build/tests/$name" "$stage/tests/${name#*/}"
done
ln -s "$build/tests/gpu/kernel_check" "$build/tools/tyerd/tyerd" "$stage/exe/"
cp "$repo/tools/gpu-check-run" "$stage/run"
cp "$repo/tools/gpu-check-table.py" "$stage/table.py"
cp "$repo/tools/with-service" "$stage/"
cp "$repo"/tests/scenario/{outside,worker_killed,upgrade,restart_loop,restarted_engine}.py "$stage/scenario/"
cp "$repo/tests/soak/run" "$stage/scenario/soak"
cp "$repo/tests/bench/restart" "$stage/scenario/restart"
echo test >"$stage/commit"
export TYER_STANDIN=devices=$devices,ops=64 TYER_CUDA_DRIVER=$driver OUT=$stage/out TYER_BUDGET_SECONDS=1000
mkdir "$OUT"
"$stage/run" --tiny --devices "$devices" "$@" | tee "$stage/said"
test -s "$OUT/table.txt" && test -s "$OUT/summary.json" && test -s "$OUT/logs.tar.gz"
if grep -E 'not run|its report is not whole' "$OUT/table.txt"; then
	exit 1
fi
(($#)) && exit 0
if ((devices == 1)); then
	wanted=('alone, fast' 'busy, quiet' 'RETRIEVE of one chunk' '16 clients, Tyer' '16 clients, 16 threads' 'beyond a bare context'
		'longest call in steady state' 'a client over nng' "owner in the engine's process, quiet"
		"embedded-ways, staged-t4-m32-k" 'kill -9 with')
else
	wanted=("$devices GPUs, Tyer, split: store" "$devices GPUs, Tyer, cross-layer: both" "$devices GPUs, 16 threads" 'one GPU hangs'
		'one client killed' '16 clients, 16 threads')
fi
for row in "${wanted[@]}"; do
	grep -qF "$row" "$OUT/table.txt" || {
		echo "no row says: $row"
		exit 1
	}
done
