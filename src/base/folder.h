/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder of sockets in /tmp.
 */
#ifndef TY_BASE_FOLDER_H
#define TY_BASE_FOLDER_H

#include <tyer/result.h>

/* /tmp/tyer-UID, where a user's sockets lie if nothing else was said and it has no runtime directory, has a name that all can foresee, in a
 * place where all may make it: whoever is first may put a socket of his own there. If `path` (of a socket) lies in that of this
 * process's user: TY_DENIED, unless the folder is that user's and nobody else may write to it. TY_OK for all other paths, whose folders are
 * their operator's to see to, and if it is not there. Asks the file system once. */
TY_MUST_USE enum ty_code ty_folder_check(const char *path, struct ty_error *err);

#endif
