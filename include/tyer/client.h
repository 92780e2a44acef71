/* SPDX-License-Identifier: Apache-2.0
 *
 * libtyer-client: an engine's side of Tyer.
 *
 * A client belongs to one thread: only the thread that calls ty_client_poll may call any other
 * function of it. Every request function returns at once; its completion is delivered exactly once by
 * ty_client_poll, on that thread, with one terminal code. ty_client_fd becomes readable when there
 * is something to poll for, so a client fits into any event loop. A completion may send further requests;
 * inside of one ty_client_poll delivers nothing (it returns 0), and ty_client_close must not be called.
 * Clients share nothing: a process may have several, each with a thread of its own or all with one. In every function `err` may be
 * null; pointers to a client, a pool, a transfer or a result may not, where nothing else is said.
 *
 * A service that does not answer completes a request with TY_TIMEOUT, a second after the service itself
 * should have. A request is never sent twice.
 *
 * When the service is gone (an engine goes on computing) every open request completes with the reason at
 * once, TY_CLOSED as a rule, and further ones are refused with TY_CLOSED at the call. ty_client_poll then
 * connects again by itself, says HELLO and registers every pool again under the number that the user has
 * for it; each attempt takes at most connect_timeout_us, each dial a second, and at most 1.25 s lie between
 * two. The timeline page stays what it is. Sessions are gone: LOOKUP opens them anew. `changed` tells.
 *
 * The contract behind every field (units, limits, errors) is tyer.proto.
 */
#ifndef TYER_CLIENT_H
#define TYER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ty_client; /* opaque */

#define TY_KEY_BYTES 32
#define TY_UUID_BYTES 16
#define TY_OWNER_BYTES 16
#define TY_IPC_HANDLE_BYTES 64
#define TY_BLOCK_SKIP UINT32_MAX /* a block id that RETRIEVE does not write */
#define TY_TIMELINE_WORDS 512    /* words of a client's timeline page; word 0 is the service's */

enum ty_client_state {
	TY_CLIENT_UP,   /* requests are sent; every pool is registered */
	TY_CLIENT_AWAY, /* requests are refused with TY_CLOSED; the client is trying to connect again */
};

struct ty_client_options {
	size_t size;             /* sizeof(struct ty_client_options); what is not set is zero: see result.h */
	const char *url;         /* of the service: "ipc:///run/tyer/tyer.sock", "tls+tcp://192.0.2.7:9701", "tcp://127.0.0.1:9701" (a
	                            numeric address) */
	const char *attach_path; /* its attach socket; null: a client that may only PING and STATUS */
	const char *name;        /* for people; may be null */
	uint8_t engine[16];      /* shared by the engine's processes; all zero = drawn at random */
	const char *tenant, *model, *revision, *dtype, *quantization; /* null = "" */
	uint32_t max_requests;   /* in flight, 1..64; 0 = 32. One more answers TY_BUSY at the call */
	uint32_t timeout_us;     /* of each request (but see ty_client_set_timeout); 0 = the service's default */
	uint32_t connect_timeout_us; /* attach, dial and HELLO together; 0 = 5 s */
	uint32_t weight; /* share of a device beside other clients, 1..100 (the service may allow less); 0 = the service's default */
	/* Called by ty_client_poll when the service has gone away and when it is there again; may be null. What it may do is
	 * what a completion may. */
	void (*changed)(void *user, enum ty_client_state state);
	void *changed_user;
	/* For a url of tls+tcp://; else null. PEM files, read by ty_client_open: those that may have signed the service's certificate; what this
	 * client shows, a certificate and its key in one file (null: nothing). And for whom the service's certificate must be good: a DNS
	 * name, or a numeric address that stands in it as such; null: the address of the url. What fails is TY_DENIED. */
	const char *tls_ca, *tls_cert, *tls_name;
};

/* What the service said in HELLO. The pointer is good as long as the client lives; what it points to changes with another service,
 * before `changed` is called with TY_CLIENT_UP (`devices` too, and chunk_tokens may). */
struct ty_device_info {
	char name[32];
	char model[96];
	uint8_t uuid[TY_UUID_BYTES];
};
struct ty_client_info {
	uint64_t boot;
	uint64_t client;
	uint32_t chunk_tokens;
	uint32_t max_operation_chunks;
	uint32_t max_operations;
	uint64_t max_chunk_bytes;
	uint32_t device_count;
	const struct ty_device_info *devices;
};

/* Connect, attach and HELLO; waits for at most connect_timeout_us (the one function that waits, but for a poll that is told to), also while the
 * service opens its devices. On TY_OK *out is the caller's until ty_client_close; else it is null. TY_CLOSED: nobody listens there.
 * TY_TIMEOUT, TY_DENIED, TY_PROTOCOL, TY_INVALID, TY_LIMIT, TY_STOPPING, ...: docs/wire.md has the table. Any thread; the client
 * then belongs to the one that polls it. */
TY_API TY_MUST_USE enum ty_code ty_client_open(const struct ty_client_options *options,
	struct ty_client **out, struct ty_error *err);
/* Requests in flight complete with TY_CANCELLED, inside this call. The service releases all that the
 * client held. Does not wait. Null is allowed. */
TY_API void ty_client_close(struct ty_client *client);
/* In a child of fork: lets go of the parent's client there, without a word to the service and without completions. The parent goes on with
 * it. A child that neither calls this nor execs keeps the parent's connection open, so that the service takes the parent for
 * alive as long as either lives; and no other function of the client may be called in it. Null is allowed. */
TY_API void ty_client_forked(struct ty_client *client);

TY_API const struct ty_client_info *ty_client_info(const struct ty_client *client);
/* Is the service there? If not, *why (null is allowed) says what became of the last attempt. */
TY_API enum ty_client_state ty_client_state(const struct ty_client *client, struct ty_error *why);
/* The timeout of each request that is sent from here on, in microseconds, instead of options.timeout_us; 0 = the service's
 * default. So a LOOKUP may have less time than a STORE. TY_INVALID: the service allows less; nothing has changed then. */
TY_API TY_MUST_USE enum ty_code ty_client_set_timeout(struct ty_client *client, uint32_t timeout_us, struct ty_error *err);
/* A descriptor to wait on for readability; the client's own. */
TY_API int ty_client_fd(const struct ty_client *client);
/* Deliver completions, at most `max` of them (0 = all that are there); returns how many. Waits up to
 * timeout_us for the first one (0 = does not wait). */
TY_API uint32_t ty_client_poll(struct ty_client *client, uint32_t max, uint32_t timeout_us);

/* ---- results ------------------------------------------------------------------------------- */

enum ty_operation_state {
	TY_OPERATION_RESERVING, TY_OPERATION_WAITING, TY_OPERATION_QUEUED, TY_OPERATION_COPYING, TY_OPERATION_COMMITTING,
	TY_OPERATION_OVER,
};
struct ty_operation { /* Operation of tyer.proto */
	uint64_t id, client, session;
	bool store; /* else a RETRIEVE */
	enum ty_operation_state state;
	uint64_t age_us;
	uint32_t chunks;
	bool answered, blocks_in_use;
	enum ty_code answer, code;
	uint32_t stored, present, dropped;
};

struct ty_result {
	enum ty_code code;
	const char *error;     /* the service's words; "" when code is TY_OK; valid in the callback */
	uint64_t boot;         /* of the service that answered, 0 if none did */
	bool blocks_in_use;    /* a RETRIEVE or STORE that failed, or was not answered: a copy may still touch its blocks. False:
	                          none does, now or later. ty_client_flush says when none does any more; and when a connection that was
	                          lost is there again (TY_CLIENT_UP), with its pools, none of before does */
	union { /* by the request; only when code is TY_OK */
		struct { uint32_t registration; uint64_t chunk_bytes; uint8_t fingerprint[32]; } registered; /* bytes of one part of a chunk */
		struct { uint32_t chunks, hits; } lookup; /* whole chunks of the chain; how many from the first one on are leased now */
		struct { uint32_t chunks; } retrieve; /* written: all that were asked for */
		struct { uint32_t stored, present, dropped; } store; /* parts: written now; here before, or written by another; without room */
		struct { uint32_t released; } end_session; /* leases */
		struct { const struct ty_operation *list; uint32_t count; } operations; /* CANCEL too: one, or none */
		struct { const uint8_t *bytes; size_t length; } status; /* an encoded StatusReply (tyer.proto) */
		struct { const uint8_t *bytes; size_t length; } admin;  /* an encoded Reply, with its verb */
	};
};
typedef void (*ty_done_fn)(void *user, const struct ty_result *result);

/* ---- the timeline -------------------------------------------------------------------------- */

/* The client's page of TY_TIMELINE_WORDS 64-bit words that only grow, shared with the service. The
 * client (its CPU or its stream) raises ready words, the service raises done words; which word is
 * which is up to the client. Null without attach. For registering the page with CUDA; a CPU uses the
 * two functions below. */
TY_API void *ty_client_timeline(struct ty_client *client);

struct ty_mark {
	uint32_t word;  /* 1..TY_TIMELINE_WORDS-1; 0 = none */
	uint64_t value; /* reached when the word is >= value */
};

/* For both: the client has a timeline, and mark.word is below TY_TIMELINE_WORDS; anything else ends the process. Word 0: nothing is raised,
 * and it is reached. */
/* Raise a ready word: all that this thread wrote before is visible to the service (release). A value that it has passed changes nothing. */
TY_API void ty_client_raise(struct ty_client *client, struct ty_mark mark);
/* Is a done word there yet? Then all that the service wrote before is visible (acquire). */
TY_API bool ty_client_reached(const struct ty_client *client, struct ty_mark mark);

/* ---- requests ------------------------------------------------------------------------------ */
/* Each returns TY_OK (then `done` is called exactly once) or why it was not sent (then it is not): TY_CLOSED while the service is away,
 * TY_BUSY when max_requests are in flight, TY_LIMIT, TY_INVALID, TY_NO_MEMORY. All memory passed in may be reused when the function
 * returns; `user` is only handed on. A service that hangs delays nothing here: completions come with TY_TIMEOUT. */

TY_API TY_MUST_USE enum ty_code ty_client_ping(struct ty_client *c, ty_done_fn done, void *user,
	struct ty_error *err);
TY_API TY_MUST_USE enum ty_code ty_client_status(struct ty_client *c, ty_done_fn done, void *user,
	struct ty_error *err);

/* A verb of the administration (PIN, LIST, CONFIGURE, ... in tyer.proto), as an encoded Request of which only the verb counts. The
 * client is one without an attach connection, to the service's administration socket. */
TY_API TY_MUST_USE enum ty_code ty_client_admin(struct ty_client *c, const void *request, size_t length, ty_done_fn done,
	void *user, struct ty_error *err);

/* A physical piece of a region, exported as a POSIX descriptor (cuMemExportToShareableHandle). */
struct ty_segment {
	int fd;         /* as ty_region's */
	uint64_t bytes; /* of the whole piece: what it was created with */
};
/* Memory is one of three: a memfd sealed against shrinking, not of huge pages (host device), a legacy CUDA IPC handle, or pieces
 * made with cuMemCreate, which the service maps one behind the other; a single piece may be given as `fd` too. Descriptors stay the
 * caller's. With an owner in this process (embed.h) it is none of them, but an address. */
struct ty_region {
	bool is_fd;                             /* fd, else ipc_handle, unless there are segments, or an address */
	int fd;
	uint8_t ipc_handle[TY_IPC_HANDLE_BYTES];
	uint64_t allocation_bytes, offset, length; /* of all of it; where the pool begins in it, and how long it is there */
	uint32_t segment_count;                 /* 0: none */
	const struct ty_segment *segments;      /* in the order of their addresses; allocation_bytes is their sum */
	uint64_t address;                       /* of the allocation, in this process; 0: none. Never goes over the wire */
};
struct ty_plane {
	uint32_t region; /* index into the pool's */
	uint64_t offset; /* bytes from the region's beginning to block 0; a multiple of 16 */
};
/* Block b of a plane lies at the plane's offset + b * block_stride, run_bytes long. presets.h fills these for known layouts. */
struct ty_group {
	uint32_t block_tokens, block_count; /* tokens of a block, which divide chunk_tokens; blocks */
	uint64_t block_stride;          /* bytes from a block to the next */
	uint32_t run_bytes;             /* of one block in one plane; a multiple of 16 */
	uint32_t plane_count;           /* 1..1024 */
	const struct ty_plane *planes;  /* in the model's own order, which is part of the key */
};
struct ty_pool {
	uint8_t device[TY_UUID_BYTES]; /* whose memory it is: ty_device_info's uuid, or CUDA's; all zero: the host */
	uint32_t region_count, group_count; /* 1..256, 1..8 */
	const struct ty_region *regions;
	const struct ty_group *groups;
	uint32_t part, parts; /* which of `parts` ranks' shares of a chunk lies here, from 0; one share: 0 of 1 */
	const char *format; /* the order inside a run, e.g. "NHD"; null = "" */
	uint32_t step_count;   /* of RETRIEVEs layer by layer, at most 256; 0 = none */
	const uint32_t *steps; /* step by step, in each for each group: how many of its planes are there by then */
	uint8_t owner[TY_OWNER_BYTES]; /* the owner in this process that moves the pool's blocks, ... */
	uint64_t memory;               /* ... and what it calls the pool: ty_embed_offer fills both. All zero: the service's own owner */
};
/* The registration's number is the client's own, good until UNREGISTER, also for a service that comes back. Descriptors are
 * kept, as duplicates, for that time. UNREGISTER while the service is away returns TY_CLOSED and forgets the pool. One of the two that ends
 * with TY_TIMEOUT leaves nothing at the service: the library takes the pool back. Its memory may be mapped there until then. While
 * one waits for that ty_client_register returns TY_BUSY, so that the same memory may be registered again as soon as it may be called. */
TY_API TY_MUST_USE enum ty_code ty_client_register(struct ty_client *c, const struct ty_pool *pool,
	ty_done_fn done, void *user, struct ty_error *err);
TY_API TY_MUST_USE enum ty_code ty_client_unregister(struct ty_client *c, uint32_t registration,
	ty_done_fn done, void *user, struct ty_error *err);

/* What a prompt consists of, from its beginning. Either tokens or hashes; the other pointer null. */
struct ty_chain {
	const uint32_t *tokens;
	size_t token_count;    /* what is left over of whole chunks is ignored */
	const uint8_t *hashes; /* chunk_count * TY_KEY_BYTES: the engine's own, each of which stands for all before it, too */
	size_t chunk_count;
};
/* Opens a session (any number but 0, shared by the engine's processes), or gives it another prompt, and leases what is here of the
 * prompt's beginning: until ty_client_end_session, the session's next LOOKUP, or the client's end. */
TY_API TY_MUST_USE enum ty_code ty_client_lookup(struct ty_client *c, uint64_t session,
	const struct ty_chain *chain, ty_done_fn done, void *user, struct ty_error *err);
/* The same with a LoRA adapter's and multimodal inputs' identity (each at most 64 bytes). */
TY_API TY_MUST_USE enum ty_code ty_client_lookup_as(struct ty_client *c, uint64_t session,
	const struct ty_chain *chain, const void *adapter, size_t adapter_bytes, const void *media,
	size_t media_bytes, ty_done_fn done, void *user, struct ty_error *err);

/* What the engine knows of the future of a session's chunks (tyer.proto, Hint). All zero: nothing. */
enum ty_hint_kind { TY_HINT_NONE, TY_HINT_DONE, TY_HINT_ALIVE, TY_HINT_PINNED };
struct ty_hint_said {
	enum ty_hint_kind kind;
	uint32_t priority; /* 0..10 */
	uint32_t keep_s;   /* 0..7680 */
};

/* The same with everything that a LOOKUP may say. */
struct ty_lookup {
	uint64_t session;
	const struct ty_chain *chain;
	const void *adapter, *media;
	size_t adapter_bytes, media_bytes;
	uint64_t conversation;           /* 0: the session is one of its own */
	const struct ty_hint_said *hint; /* for the session; null: nothing */
};
TY_API TY_MUST_USE enum ty_code ty_client_lookup_with(struct ty_client *c, const struct ty_lookup *lookup, ty_done_fn done,
	void *user, struct ty_error *err);

/* RETRIEVE and STORE: chunks [first, first + count) of the session, block ids group by group, in each
 * group chunk by chunk. */
struct ty_transfer {
	uint64_t session;
	uint32_t registration;
	uint32_t first, count;         /* chunks; at most ty_client_info's max_operation_chunks */
	const uint32_t *const *blocks; /* one array a group */
	const uint32_t *block_counts;  /* their lengths: count * chunk_tokens / block_tokens */
	uint32_t group_count;          /* the pool's */
	struct ty_mark ready, done;    /* not before the one is reached; and the other is raised when the blocks are there, or have been read */
	struct ty_mark layers; /* RETRIEVE only: reached with value + i when step i of the pool is there; word 0 = not asked for */
	const struct ty_chain *append; /* STORE only; null = nothing */
	const struct ty_hint_said *hint; /* STORE only; null = LOOKUP's */
};
TY_API TY_MUST_USE enum ty_code ty_client_retrieve(struct ty_client *c, const struct ty_transfer *t,
	ty_done_fn done, void *user, struct ty_error *err);
TY_API TY_MUST_USE enum ty_code ty_client_store(struct ty_client *c, const struct ty_transfer *t,
	ty_done_fn done, void *user, struct ty_error *err);
/* Answers when no RETRIEVE or STORE sent before it touches these blocks any more; group_count 0: any block of the registration. */
TY_API TY_MUST_USE enum ty_code ty_client_flush(struct ty_client *c, uint32_t registration, const uint32_t *const *blocks,
	const uint32_t *block_counts, uint32_t group_count, ty_done_fn done, void *user, struct ty_error *err);
/* The id of the request that was sent last, for the two below: asked for at once, before a poll, in which the client may send its own. */
TY_API uint64_t ty_client_last_id(const struct ty_client *c);
/* Nobody wants this RETRIEVE or STORE any more: it ends as soon as it may, and its own completion comes then. */
TY_API TY_MUST_USE enum ty_code ty_client_cancel(struct ty_client *c, uint64_t id, ty_done_fn done, void *user,
	struct ty_error *err);
/* What became of these requests (count 0: of all) of the client's engine, also of those whose answer was lost with a connection. */
TY_API TY_MUST_USE enum ty_code ty_client_operations(struct ty_client *c, const uint64_t *ids, uint32_t count, ty_done_fn done,
	void *user, struct ty_error *err);
TY_API TY_MUST_USE enum ty_code ty_client_end_session(struct ty_client *c, uint64_t session,
	ty_done_fn done, void *user, struct ty_error *err);
/* The same, saying of the session's whole chain what will become of it. */
TY_API TY_MUST_USE enum ty_code ty_client_end_session_as(struct ty_client *c, uint64_t session,
	const struct ty_hint_said *hint, ty_done_fn done, void *user, struct ty_error *err);

#ifdef __cplusplus
}
#endif
#endif
