#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# expect_exit.sh STATUS PROGRAM ARGS...: runs the program; passes if it exits with STATUS and, when STATUS is not 0, says
# why on stderr and nothing on stdout.
want=$1
shift
out=$(mktemp) || exit 99
err=$(mktemp) || exit 99
trap 'rm -f "$out" "$err"' EXIT
"$@" >"$out" 2>"$err"
got=$?
cat "$out" "$err"
[ "$got" = "$want" ] || { echo "exit status $got, expected $want"; exit 1; }
if [ "$want" = 0 ]; then
	[ -s "$out" ] || { echo "nothing on stdout"; exit 1; }
else
	[ ! -s "$out" ] || { echo "something on stdout"; exit 1; }
	[ -s "$err" ] || { echo "nothing on stderr"; exit 1; }
fi
