/* SPDX-License-Identifier: Apache-2.0 */
#include "folder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum ty_code ty_folder_check(const char *path, struct ty_error *err)
{
	unsigned long uid = geteuid();
	char folder[40];
	struct stat st;
	int length = snprintf(folder, sizeof folder, "/tmp/tyer-%lu", uid);

	if (strncmp(path, folder, (size_t)length) != 0 || path[length] != '/')
		return TY_OK;
	if (lstat(folder, &st) != 0)
		return errno == ENOENT ? TY_OK : ty_fail(err, TY_IO, "%s: %s", folder, strerror(errno));
	if (S_ISDIR(st.st_mode) && st.st_uid == uid && !(st.st_mode & 022))
		return TY_OK;
	return ty_fail(err, TY_DENIED, "%s is %s of user %lu, mode %03o, expected a folder of user %lu that nobody else may write to: somebody else "
		"may have put a socket there", folder, S_ISDIR(st.st_mode) ? "a folder" : S_ISLNK(st.st_mode) ? "a link" : "something",
		(unsigned long)st.st_uid, (unsigned)(st.st_mode & 07777), uid);
}
