#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/scenario/replay.sh BUILD TRACE [HITS CHUNKS]: end to end. One engine replays the whole trace, one prompt at a time,
# against a fresh service whose arena holds everything: each chunk that any earlier prompt had must be found, no other may,
# and every byte must be right. TYER_REPLAY_ARENA, TYER_REPLAY_GEOMETRY, TYER_REPLAY_TIER (as --tier says it) and
# TYER_REPLAY_SPEED change arena, chunks, what is below and how fast the prompts come. With HITS and CHUNKS the counts must be exactly those.
set -euo pipefail

build=$1 trace=$2 want_hits=${3-} want_chunks=${4-}
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# 4 KiB for 512 tokens: the smallest slot, so that some 200,000 different chunks are less than 1 GiB
geometry=${TYER_REPLAY_GEOMETRY:-layers=1,planes=1,dim=4}
work=$(mktemp -d "${TMPDIR:-/tmp}/tyer-replay.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2016 # the inner shell expands
"$repo/tools/with-service" "$build" --device host --l1-size "${TYER_REPLAY_ARENA:-2GiB}" --l1-ahead 256MiB --chunk-tokens 512 \
	${TYER_REPLAY_TIER:+--tier "$TYER_REPLAY_TIER"} --log-level warn -- bash -c '
	exec "$(find "$1" -type f -name tyer-bench -perm -u+x -print -quit)" replay "$2" --connect "$TYER_CONNECT" \
		--attach "$TYER_ATTACH" --device host --geometry "$3" --concurrency 1 --clients 1 --block-tokens 512 --speed "$5" \
		--require-ceiling --no-progress --json "$4"' bash "$build" "$trace" "$geometry" "$work/report.json" \
	"${TYER_REPLAY_SPEED:-max}"

python3 - "$work/report.json" "$want_hits" "$want_chunks" <<'PY'
import json, sys

report = json.load(open(sys.argv[1]))
hits, chunks, wrong = report["hits"], report["chunks"], report["chunks_wrong"]
print(f"{report['requests']} requests: {hits} hits of {chunks} chunks, {report['chunks_checked']} checked, {wrong} wrong")
bad = []
if wrong:
    bad.append(f"{wrong} chunks are wrong")
if report["chunks_checked"] < hits or not hits:
    bad.append(f"{report['chunks_checked']} chunks were checked")
if report["requests_failed"]:
    bad.append(f"{report['requests_failed']} requests failed")
if report["chunks_dropped"]:
    bad.append(f"{report['chunks_dropped']} chunks were dropped")
for name, found, want in (("hits", hits, sys.argv[2]), ("chunks", chunks, sys.argv[3])):
    if want and found != int(want):
        bad.append(f"{name}: found {found}, expected {want}")
for line in bad:
    print("replay:", line)
sys.exit(1 if bad else 0)
PY
