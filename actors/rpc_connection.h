/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge of rpc: a listener and its connections, and on them the wire of nng's REQ/REP protocol: the greeting, the frames, the hops
 * before a request. docs/wire.md says why it is not nng's own REP socket. Inside of rpc only.
 *
 * All of it belongs to the actor that has the edge, which waits in epoll on a thread of its own. Three rules keep it quiet and every death noticed:
 *
 *   - accepting ends only with the actor: an error of it is counted and tried again;
 *   - a connection is read from, but for one whose replies wait: that is waited for until it takes them, which has a deadline;
 *   - events are level-triggered, and each gets one receive and as many sends as the socket takes: nobody keeps the others waiting.
 */
#ifndef TY_ACTORS_RPC_CONNECTION_H
#define TY_ACTORS_RPC_CONNECTION_H

#include "base/log.h"
#include "base/waiter.h"
#include "rpc.h"
#include "rpc_stream.h"
#include "unix_listener.h"

#define TY_RPC_HOPS_MAX 8                                  /* numbers before a request, REQ's own included */
#define TY_RPC_HEADER_ROOM 64                              /* of a frame beyond max_request_bytes; at least 4 * HOPS_MAX */
#define TY_RPC_READ_BYTES 4096                             /* received at once; a longer frame gets memory of its own */
#define TY_RPC_TRANSFER_BYTES 64                           /* received at once, at least, when it is a transfer; a PING is less */
#define TY_RPC_RESERVE_BYTES 640                           /* of a frame with any reply that has no parts of its own length: such a one has room
                                                              on each connection also when there is no memory */
#define TY_RPC_CONNECTIONS_MAX (4 * TY_MAX_CLIENTS + 64)   /* one more is closed at once */
#define TY_RPC_CONNECTION_REQUESTS 128                     /* in the house; one more answers BUSY. Twice a ty_client's most */
#define TY_RPC_CONNECTION_REPLIES 64                       /* that wait to be sent: until some are, nothing more is read */
#define TY_RPC_CONNECTION_REPLY_BYTES (256 * 1024)         /* likewise */
/* Connections over tcp whose machine froze or fell off the net: after 30 s of silence three probes, 10 s apart; or 30 s after what
 * it does not acknowledge. */
#define TY_RPC_KEEP_IDLE_S 30
#define TY_RPC_KEEP_INTERVAL_S 10
#define TY_RPC_KEEP_PROBES 3
#define TY_RPC_UNACKNOWLEDGED_MS 30000
#define TY_RPC_REQUEST_BYTES (UINT64_C(128) * 1024 * 1024) /* of requests that engines have, as they came (unpacked they take up to five times as
                                                              much); or two of max_request_bytes, if that is more. One more answers BUSY */
#define TY_RPC_FRAME_BYTES (UINT64_C(256) * 1024 * 1024)   /* of frames that are on their way in, of all connections: past it the one that
                                                              has sent most of its own is closed */
#define TY_RPC_REPLY_BYTES (UINT64_C(64) * 1024 * 1024)    /* of all connections; one whose reply does not fit is closed */

struct ty_rpc_connection;
struct ty_rpc_slot;

/* Named limits; another value only in tests. */
struct ty_rpc_limits {
	uint32_t connections, requests, replies;
	uint64_t reply_bytes, all_reply_bytes, all_frame_bytes, request_bytes;
	uint64_t queue_bytes; /* that wait on a connection; past it it is closed. 0: no such limit */
	size_t frame_bytes;
	int32_t frame_ms; /* TY_RPC_SEND_TIMEOUT_MS: for a greeting, for the rest of a frame, for a reply to be taken */
};

/* What is sent: a frame, ready, on the heap. */
struct ty_rpc_reply {
	struct ty_rpc_reply *next;
	int64_t deadline; /* of its sending, which has begun; else TY_NEVER */
	bool request;     /* answers one (the greeting does not) */
	bool held;        /* that one came before the stop, which waits for it */
	bool reserved;    /* it is the connection's reserve, and comes back to it */
	size_t size, sent;
	uint8_t bytes[];
};

struct ty_rpc_connection {
	struct ty_rpc_edge *edge;
	struct ty_rpc_stream stream;
	uint32_t events;         /* what epoll waits for */
	bool secure;             /* a handshake of TLS is over, if there is one */
	bool sending;            /* its socket is full: that there is room again is waited for */
	bool closing;            /* over; it may be another's the next time that somebody is accepted */
	bool greeted;
	bool waiting;            /* has too many replies; what it sent stays unread */
	bool taking;             /* in the middle of what came: replies are sent together after it */
	int64_t deadline;        /* of a greeting or frame that has begun; else TY_NEVER */
	int64_t late_at;         /* when `late` comes; TY_NEVER: it is not set */
	struct ty_timer late;    /* for the deadlines of what is received and sent; it may come too early */

	uint32_t from, to;       /* of buffer: received, not looked at */
	uint8_t *body;           /* of a frame that is longer than the buffer */
	size_t body_size, body_got;

	struct ty_rpc_reply *first, **last;
	struct ty_rpc_reply *reserve; /* room for TY_RPC_RESERVE_BYTES, for want of memory; the greeting is its first use. Null: it is on its way out */
	uint32_t replies;
	uint64_t reply_bytes;

	uint64_t uid;    /* ipc: whose process it is */
	uint64_t client; /* whose HELLO was answered here last; 0: nobody's */
	uint32_t device; /* whose owner its requests are about, for all we know: a pool of that one was registered here last; plus one, 0: none was */

	struct ty_rpc_slot *slots; /* its requests in the house; rpc.c's */
	uint32_t requests;

	struct ty_rpc_connection *next_of_all, *next_free;
	uint8_t buffer[TY_RPC_READ_BYTES];
};

/* What the edge tells the actor, within a call of the actor's. */
struct ty_rpc_calls {
	/* A request; null: none is expected. `trace` (trace_bytes, at most 4 * TY_RPC_HOPS_MAX) goes in front of its reply. */
	void (*request)(void *owner, struct ty_rpc_connection *connection, const uint8_t *trace, size_t trace_bytes,
		const uint8_t *bytes, size_t length);
	/* A reply with `request` is out, or will never be. It is freed after the call. */
	void (*replied)(void *owner, const struct ty_rpc_reply *reply);
	/* Over: its slots are to forget it. */
	void (*gone)(void *owner, struct ty_rpc_connection *connection);
};

enum ty_rpc_transport {
	TY_RPC_IPC, /* frames carry a type; the kernel says whose process it is */
	TY_RPC_TLS,
	TY_RPC_TCP, /* with --tcp-insecure: nothing says who it is */
};
/* What an edge speaks. */
struct ty_rpc_protocol {
	uint16_t ours, theirs;         /* numbers of nng's protocols, in the greetings */
	uint32_t retry, late;          /* the types of timers that its owner gets; it hands them to the edge (below) */
};
extern const struct ty_rpc_protocol ty_rpc_replies; /* REP to REQ peers, for rpc */

struct ty_rpc_edge {
	struct ty_service *service;
	const struct ty_rpc_protocol *protocol;
	bool private; /* only root and the user of the service may connect; ipc alone */
	uint32_t open; /* connections */
	struct ty_unix_listener listener; /* over tcp: its descriptor alone */
	struct ty_waiter waiter;
	struct ty_tls *tls; /* null: none */
	uint32_t handshake_turn; /* which of those that wait goes on */
	int closer;         /* closes what descriptors clients send, where the kernel cannot forbid it; -1: it can */
	enum ty_rpc_transport transport;
	struct ty_rpc_limits limits;
	struct ty_timer retry; /* after an error of accept; the owner's */
	const struct ty_rpc_calls *calls;
	void *owner;
	struct ty_rpc_connection *all, *free; /* made when needed, freed at the close; never more than limits.connections */
	uint64_t reply_bytes, frame_bytes; /* that wait to be sent; of frames that are not whole yet, of connections that are not closing */
	int64_t log_after; /* a line a second about clients */
	uint32_t log_left_out;
};

/* Make ready what `url` names, set the edge's service and limits, and listen. The edge's protocol and `private` are set before; what was made
 * before an error goes with ty_rpc_edge_free. */
TY_MUST_USE enum ty_code ty_rpc_listen(struct ty_service *service, const char *url, struct ty_rpc_edge *edge,
	struct ty_error *err);

/* Accept, and tell `owner`, whose actor this is called on. */
void ty_rpc_edge_start(struct ty_rpc_edge *edge, const struct ty_rpc_calls *calls, void *owner);
/* The actor's wait, wake and poll (tyer/actor.h). */
void ty_rpc_edge_wait(struct ty_rpc_edge *edge, int64_t deadline);
void ty_rpc_edge_wake(struct ty_rpc_edge *edge);
int64_t ty_rpc_edge_poll(struct ty_rpc_edge *edge, int64_t now);
/* Handlers, for the owner's table at the types of its protocol. */
void ty_rpc_edge_retry(void *actor, struct ty_msg *msg);
void ty_rpc_edge_late(void *actor, struct ty_msg *msg);
/* The reply is the edge's. The connection may be over when it returns. */
void ty_rpc_edge_send(struct ty_rpc_connection *connection, struct ty_rpc_reply *reply);
void ty_rpc_edge_close(struct ty_rpc_connection *connection, const char *why);
/* At the actor's end: everything is closed. Replies that are not out are dropped without a word. */
void ty_rpc_edge_stop(struct ty_rpc_edge *edge);
void ty_rpc_edge_free(struct ty_rpc_edge *edge);

/* ---- what bytes say; pure, any thread (tests/fuzz/edge.c) ---- */

enum ty_rpc_head {
	TY_RPC_HEAD_SHORT, /* more has to come */
	TY_RPC_HEAD_WHOLE,
	TY_RPC_HEAD_TYPE,  /* ipc's first byte is none of a message */
	TY_RPC_HEAD_LONG,  /* *length is more than `max` */
};
/* The beginning of a frame in `here` bytes: *head of them, and then come *length. */
enum ty_rpc_head ty_rpc_read_head(const uint8_t *bytes, size_t here, bool ipc, size_t max, size_t *head, uint64_t *length);
/* How many bytes of a frame are its hops: numbers of 32 bits, the last one has its first bit set. 0: there is no last one among the first
 * TY_RPC_HOPS_MAX. */
size_t ty_rpc_read_hops(const uint8_t *bytes, size_t length);

/* ---- between rpc_edge.c, rpc_connection.c and rpc_listener.c ---- */

#define TY_RPC_GREETING_BYTES 8

/* A connection that is free takes this socket; `greeting` has room for TY_RPC_RESERVE_BYTES. Both are the connection's from here on. */
void ty_rpc_connection_begin(struct ty_rpc_connection *c, int fd, uint64_t uid, struct ty_rpc_reply *greeting);
/* Epoll tells something of it. */
void ty_rpc_connection_event(struct ty_rpc_connection *c, uint32_t events);
/* About what clients do: any of them can cause a line, so there is one a second. */
TY_PRINTF(3, 4) void ty_rpc_edge_note(struct ty_rpc_edge *edge, enum ty_log_level level, const char *fmt, ...);

#endif
