/* SPDX-License-Identifier: Apache-2.0 */
#include "clients_state.h"

#include <stdlib.h>
#include <sys/socket.h>

enum ty_code ty_clients_listen(struct ty_service *service, struct ty_clients_socket **out, struct ty_error *err)
{
	const struct ty_config *config = service->config;
	struct ty_clients_socket *s = calloc(1, sizeof *s);
	enum ty_code code;

	*out = NULL;
	if (s == NULL)
		return ty_fail(err, TY_NO_MEMORY, "attach: no memory");
	/* whoever may not attach is refused by his credentials; with nobody but our own user the path says so too */
	code = ty_unix_listen(&s->listener, config, "attach", config->attach, SOCK_SEQPACKET, config->allow_uid.count, err);
	if (code == TY_OK)
		*out = s;
	else
		free(s);
	return code;
}

void ty_clients_close(struct ty_clients_socket *s)
{
	if (s == NULL)
		return;
	ty_unix_listener_close(&s->listener, -1);
	free(s);
}
