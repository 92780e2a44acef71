/* SPDX-License-Identifier: Apache-2.0
 *
 * Every message type of the service: the map of who may ask what of whom. Each class owns a block of 32 numbers; the
 * struct that travels is named beside the type and declared in the receiver's header.
 */
#ifndef TY_ACTORS_MESSAGES_H
#define TY_ACTORS_MESSAGES_H

enum ty_message {
	/* rpc: the edge. */
	TY_RPC_START = 0x100,    /* struct ty_msg        from main: everybody is there, receive */
	TY_RPC_ANSWER,           /* struct ty_exchange   from anyone it was given to: send the reply */
	TY_RPC_ROUTE,            /* struct ty_route      from clients: a client came or went */
	TY_RPC_STOP,             /* struct ty_stop       from main: refuse new requests, tell when all are answered */
	TY_RPC_RETRY,            /* its timer: accept again after an error */
	TY_RPC_LATE,             /* a connection's timer: a frame that is not whole, a reply that is not taken */

	/* clients: the attach socket and who is there. */
	TY_CLIENTS_START = 0x120, /* struct ty_msg       from main: everybody is there, accept */
	TY_CLIENTS_HELLO,         /* struct ty_exchange  from rpc */
	TY_CLIENTS_ROUTED,        /* struct ty_route     from rpc: the route is in place, or gone */
	TY_CLIENTS_DEVICE,        /* struct ty_gpu_ready from gpu: a device is open, or is not going to be */
	TY_CLIENTS_ENGINE_GONE,   /* struct ty_engine_end from engine: it has nobody, and all is back */
	TY_CLIENTS_STOP,          /* struct ty_stop      from main */

	/* engine: one per inference engine: sessions, registrations, operations. */
	TY_ENGINE_REQUEST = 0x140, /* struct ty_exchange from rpc */
	TY_ENGINE_JOIN,            /* struct ty_member   from clients: a process of the engine */
	TY_ENGINE_LEAVE,           /* struct ty_member   from clients: it died, or closed */
	TY_ENGINE_OP_DONE,         /* struct ty_op       from gpu or eviction */
	TY_ENGINE_MAPPED,          /* struct ty_map      from gpu */
	TY_ENGINE_UNMAPPED,        /* struct ty_map      from gpu */
	TY_ENGINE_RELEASED,        /* struct ty_lease    from eviction */
	TY_ENGINE_TICK,            /* its deadline timer */
	TY_ENGINE_FETCHED,         /* struct ty_fetch   from prefetch: chunks that came up */
	TY_ENGINE_STAY,            /* struct ty_engine_end from clients: a member has joined */
	TY_ENGINE_FLUSH_GO,        /* its own: a FLUSH that has more to look at */

	/* gpu: the owner of one device. */
	TY_GPU_START = 0x160,      /* struct ty_msg      from main: everybody is there, open the device */
	TY_GPU_TRANSFER,           /* struct ty_op       from engine or eviction */
	TY_GPU_MAP,                /* struct ty_map      from engine */
	TY_GPU_UNMAP,              /* struct ty_map      from engine, when no op of the mapping is out */
	TY_GPU_PIECE,              /* struct ty_piece    from populate: register it */
	TY_GPU_EMBED,              /* struct ty_embed_request  from clients, to `embedded` alone: an owner in an engine's process */

	/* eviction: the arena's space and the index. */
	TY_EVICTION_START = 0x180,   /* struct ty_msg    from main: everybody is there, let the arena grow */
	TY_EVICTION_RESERVE,         /* struct ty_op     from engine */
	TY_EVICTION_COMMIT,          /* struct ty_op     from gpu: copied, or failed (op->code) */
	TY_EVICTION_RELEASE,         /* struct ty_lease  from engine: touch and unpin */
	TY_EVICTION_PIECE,           /* struct ty_piece  from gpu: usable, or not; from populate: not */
	TY_EVICTION_TICK,            /* its timer, while ops wait for the arena to grow */
	TY_EVICTION_SUMMED,          /* a sum's struct ty_bytework: home again */
	TY_EVICTION_CONTROL,         /* struct ty_exchange from the administration's rpc */
	TY_EVICTION_CONTROL_GO,      /* its own: the next slice of such a request */
	TY_EVICTION_CONTROL_LATE,    /* its own timer: such a request's deadline */
	TY_EVICTION_TIER_IO,         /* struct ty_tier_io from a tier: what such a request asked of it */
	TY_EVICTION_FETCHED,         /* struct ty_fetch  from prefetch: what WARM asked for */
	TY_EVICTION_LOOK,            /* its own timer: go on looking for checksums that are missing */
	TY_EVICTION_SCRUB,           /* struct ty_scrub_ask from scrub: the next chunk; the last one is wrong, if there is one */
	TY_EVICTION_CONTROL_AGAIN,   /* its own timer: such a request waited */
	TY_EVICTION_OFFER,           /* its own timer: what was not offered to a tier in its time */
	TY_EVICTION_OFFERED,         /* struct ty_tier_io from a tier: whether it has such a chunk */
	TY_EVICTION_STOP,            /* struct ty_stop   from main: tell when all that is to go down has been given to writeback */

	/* populate: touches the arena's pages. */
	TY_POPULATE_PIECE = 0x1a0,   /* struct ty_piece  from eviction */

	/* metrics. */
	TY_METRICS_STATUS = 0x1c0,   /* struct ty_exchange from rpc */
	TY_METRICS_SCRAPE,           /* struct ty_scrape   from the HTTP server */

	/* log: writes the lines. */
	TY_LOG_LINE = 0x1e0,         /* struct ty_log_line from anyone */

	/* bytework: passes over many bytes. */
	TY_BYTEWORK_RUN = 0x200,     /* struct ty_bytework from anyone, through ty_bytework_send */

	/* link: in an engine's process it is what its owner knows of the service (src/embed/). */
	TY_LINK_READY = 0x220,       /* struct ty_gpu_ready from gpu */
	TY_LINK_PIECE,               /* struct ty_piece  from gpu */
	TY_LINK_MAPPED,              /* struct ty_map    from gpu */
	TY_LINK_UNMAPPED,            /* struct ty_map    from gpu */
	TY_LINK_COPIED,              /* struct ty_op     from gpu */
	TY_LINK_WITHDRAW,            /* struct link_withdrawal from a thread of the engine's */
	TY_LINK_DOWN,                /* the gpu actor has ended */

	/* tier: every actor of a tier, whatever its kind. */
	TY_TIER_START = 0x300,       /* struct ty_msg      from main: everybody is there */
	TY_TIER_IO,                  /* struct ty_tier_io  from anyone, through ty_tier_submit */
	TY_TIER_STOP,                /* struct ty_msg      from main: end every io, take no more */
	TY_TIER_PACKED,              /* struct ty_tier_packed from a packer: a PUT that may go on */
	TY_TIER_UNPACKED,            /* struct ty_tier_unpack from an unpacker: a GET's bytes are in their places */
	TY_TIER_OWN = 0x308,         /* from here on: a kind's own */

	/* beside a disk tier. */
	TY_DISK_WORK = 0x3a0,        /* struct disk_job    from its actor to a worker */
	TY_DISK_SCAN = 0x3c0,        /* struct disk_found  from its actor to the scanner: the next folder */

	/* prefetch: brings chunks up from the tiers. */
	TY_PREFETCH_FETCH = 0x320,   /* struct ty_fetch    from engine */
	TY_PREFETCH_RESERVED,        /* struct ty_op       from eviction: slots to read into */
	TY_PREFETCH_LANDED,          /* struct ty_op       from eviction: committed, or nothing to be read */
	TY_PREFETCH_IO,              /* struct ty_tier_io  from a tier */
	TY_PREFETCH_TICK,            /* its timer, while something is out */
	TY_PREFETCH_STOP,            /* struct ty_stop     from main: tell when nothing is out */

	/* writeback: takes chunks down to the tiers. */
	TY_WRITEBACK_DOWN = 0x340,   /* struct ty_down     from eviction: chunks, pinned, and the tiers that want them */
	TY_WRITEBACK_IO,             /* struct ty_tier_io  from a tier */
	TY_WRITEBACK_TICK,           /* its timer, while something waits */
	TY_WRITEBACK_STOP,           /* struct ty_stop     from main: tell when nothing is out */
	TY_WRITEBACK_SUMMED,         /* struct ty_bytework from bytework */

	/* scrub: reads what lies there, and verifies it. */
	TY_SCRUB_START = 0x360,      /* struct ty_msg      from main: everybody is there */
	TY_SCRUB_IO,                 /* struct ty_tier_io  from a tier */
	TY_SCRUB_CHUNK,              /* struct ty_scrub_ask from eviction: a chunk, pinned */
	TY_SCRUB_SUMMED,             /* struct ty_bytework from bytework */
	TY_SCRUB_TICK,               /* its timer */
	TY_SCRUB_STOP,               /* struct ty_stop     from main: tell when nothing is out */

	/* events: tells subscribers what is stored and evicted. */
	TY_EVENTS_START = 0x3e0,     /* struct ty_msg      from main: everybody is there, accept */
	TY_EVENTS_TELL,              /* struct ty_event_list from eviction, tiers */
	TY_EVENTS_RETRY,             /* its timer: accept again after an error */
	TY_EVENTS_LATE,              /* a connection's timer, as rpc's */
};

#endif
