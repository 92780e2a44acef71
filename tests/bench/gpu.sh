#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/bench/gpu.sh BUILD DRIVER: the load generator's GPU pool and a service with a GPU, over the stand-in for the driver:
# every layout goes in and out, and a trace is replayed.
set -euo pipefail

build=$1 driver=$2
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ ${3-} == --inside ]]; then
	bench=("$build/tools/bench/tyer-bench")
	where=(--connect "$TYER_CONNECT" --attach "$TYER_ATTACH" --device cuda:0 --cuda-driver "$driver")
	for layout in split interleaved cross-layer; do
		"${bench[@]}" copy "${where[@]}" --geometry "tiny,layout=$layout" --chunks 24 --op-chunks 5 --repeats 2 --hbm |
			tee "$TYER_DIR/out"
		tail -n 1 "$TYER_DIR/out" | grep -qE '^copy: [0-9]+ requests, 72 chunks checked, 0 wrong$'
	done
	"${bench[@]}" trace --requests 60 --seed 2 --output "$TYER_DIR/trace"
	"${bench[@]}" replay "$TYER_DIR/trace" "${where[@]}" --concurrency 4 --store-early --no-progress | tee "$TYER_DIR/out"
	tail -n 1 "$TYER_DIR/out" | grep -qE '^replay: 60 requests, [1-9][0-9]* chunks checked, 0 wrong$'
	exit
fi
exec "$repo/tools/with-service" "$build" --device cuda:0 --cuda-driver "$driver" --l1-size 256MiB --l1-ahead 128MiB \
	--chunk-tokens 512 --log-level warn -- "${BASH_SOURCE[0]}" "$build" "$driver" --inside
