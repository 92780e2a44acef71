#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/bench/cli.sh TYER-BENCH: what its command line promises without a service: exit 2 and the reason when there is
# nothing to talk to, or something that is not Tyer; traces that are the same twice; bad traces named by their line.
set -euo pipefail

bench=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/tyer-bench.XXXXXX")
impostor=
cleanup() {
	[[ ! $impostor ]] || kill "$impostor" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
bad=0

# expect STATUS WORDS COMMAND...: exit status and words among what it prints
expect() {
	local want=$1 words=$2 status=0
	shift 2
	timeout 60 "$@" >"$work/out" 2>&1 </dev/null || status=$?
	if ((status != want)) || ! grep -qF -- "$words" "$work/out"; then
		echo "cli: $*: exit status $status, expected $want and \"$words\"; printed:"
		cat "$work/out"
		bad=$((bad + 1))
	fi
}

expect 2 "expected a command" "$bench"
expect 2 "expected a command" "$bench" frobnicate
expect 0 "usage: tyer-bench COMMAND" "$bench" --help
for command in replay trace copy ping policy; do
	expect 0 "(default:" "$bench" $command --help
	expect 2 "unknown option --colour" "$bench" $command --colour blue
done

# traces: the same options, the same bytes
"$bench" trace --requests 40 --seed 5 >"$work/one.jsonl"
"$bench" trace --requests 40 --seed 5 --output "$work/two.jsonl"
cmp "$work/one.jsonl" "$work/two.jsonl"
[[ $(wc -l <"$work/one.jsonl") == 40 ]]
expect 2 "No such file" "$bench" replay "$work/none.jsonl"
sed '7s/input_length/inputlength/' "$work/one.jsonl" >"$work/bad.jsonl"
expect 2 "bad.jsonl line 7: input_length: found nothing, expected a number of tokens" "$bench" replay "$work/bad.jsonl"

# policies, by the service's own code
expect 0 "belady" "$bench" policy "$work/one.jsonl" --sizes 10,100
expect 2 'sizes: found "0"' "$bench" policy "$work/one.jsonl" --sizes 0
expect 2 'sizes: found "many"' "$bench" policy "$work/one.jsonl" --sizes 5,many
expect 2 "No such file" "$bench" policy "$work/none.jsonl"
expect 2 "expected a trace's file name" "$bench" policy

# nothing there
nowhere=(--connect "ipc://$work/nothing")
expect 2 "cannot use the service at ipc://$work/nothing" "$bench" ping "${nowhere[@]}"
expect 2 "cannot use the service at ipc://$work/nothing" "$bench" copy "${nowhere[@]}"
expect 2 "cannot use the service at ipc://$work/nothing" "$bench" replay "$work/one.jsonl" "${nowhere[@]}" --clients 3
expect 2 '--json: cannot write "/nonexistent/report"' "$bench" replay "$work/one.jsonl" "${nowhere[@]}" --json /nonexistent/report

# something else there, which talks another language on both sockets
python3 - "$work" <<'PY' &
import os, select, socket, sys

servers = []
for name in ("service", "attach.sock"):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind(os.path.join(sys.argv[1], name))
    s.listen(16)
    servers.append(s)
kept = []
while True:
    for s in select.select(servers, [], [])[0]:
        c = s.accept()[0]
        try:
            c.sendall(b"220 mail.example.org ESMTP\r\n" * 8)
        except OSError:
            pass
        kept.append(c)
PY
impostor=$!
for ((i = 0; i < 100; i++)); do
	[[ -S $work/attach.sock ]] && break
	sleep 0.05
done
expect 2 "cannot use the service at ipc://$work/service" "$bench" copy --connect "ipc://$work/service"
expect 2 "cannot use the service at ipc://$work/service" "$bench" replay "$work/one.jsonl" --connect "ipc://$work/service" \
	--ping-every 0
expect 2 "cannot use the service at ipc://$work/service" "$bench" ping --connect "ipc://$work/service"

((bad == 0)) && echo "cli: all as promised"
((bad == 0))
