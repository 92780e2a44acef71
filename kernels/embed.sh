#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Print kernels' image as C. Usage: embed.sh NAME [IMAGE]; without one the image is empty.
set -eu
echo '/* generated */'
if [ $# -gt 1 ]; then
	echo "extern const unsigned char $1[];"
	echo "extern const unsigned long $1_bytes;"
	echo "const unsigned char $1[] __attribute__((aligned(64))) = {"
	od -An -v -tu1 "$2" | sed 's/^ *//; s/  */,/g; s/$/,/'
	echo '};'
	echo "const unsigned long $1_bytes = $(($(wc -c <"$2")));"
else
	echo "extern const unsigned char $1[];"
	echo "extern const unsigned long $1_bytes;"
	echo "const unsigned char $1[1];"
	echo "const unsigned long $1_bytes = 0;"
fi
