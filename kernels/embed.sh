#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Print the kernels' image as C. Usage: embed.sh [IMAGE]; without one the image is empty.
set -eu
echo '/* generated */'
echo '#include "kernels/gather.h"'
if [ $# -gt 0 ]; then
	echo 'const unsigned char ty_kernels_image[] __attribute__((aligned(64))) = {'
	od -An -v -tu1 "$1" | sed 's/^ *//; s/  */,/g; s/$/,/'
	echo '};'
	echo "const unsigned long ty_kernels_image_bytes = $(($(wc -c <"$1")));"
else
	echo 'const unsigned char ty_kernels_image[1];'
	echo 'const unsigned long ty_kernels_image_bytes = 0;'
fi
