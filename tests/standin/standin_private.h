/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TY_STANDIN_PRIVATE_H
#define TY_STANDIN_PRIVATE_H

#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

#include "device/cuda_api.h"
#include "standin.h"

#define STANDIN_DEVICES 16
#define STANDIN_PITCH 2147483647 /* as a GPU's */
#define STANDIN_EXPORT __attribute__((visibility("default")))

/* Every function under its real exported name. */
#define STANDIN_DECLARE(name, suffix, parameters) STANDIN_EXPORT cu_result name parameters __asm__(#name suffix);
TY_CUDA_FUNCTIONS(STANDIN_DECLARE)
#undef STANDIN_DECLARE
#define STANDIN_DECLARE(name, suffix, parameters, asked, since) STANDIN_EXPORT cu_result name parameters __asm__(asked suffix);
TY_CUDA_OPTIONAL(STANDIN_DECLARE)
#undef STANDIN_DECLARE
#define STANDIN_DECLARE(name, suffix, parameters, since) STANDIN_EXPORT cu_result name parameters __asm__(#name suffix);
TY_CUDA_WORDS(STANDIN_DECLARE)
#undef STANDIN_DECLARE

enum standin_name {
#define STANDIN_NAME(name, suffix, parameters, ...) STANDIN_##name,
	TY_CUDA_FUNCTIONS(STANDIN_NAME)
	TY_CUDA_OPTIONAL(STANDIN_NAME)
	TY_CUDA_WORDS(STANDIN_NAME)
#undef STANDIN_NAME
	STANDIN_NAMES
};

struct op {
	struct op *next;
	enum op_kind { OP_COPY, OP_LAUNCH, OP_RECORD, OP_WAIT, OP_WRITE, OP_UNTIL } kind;
	bool hangs;
	bool to_host;     /* copy */
	void *to;
	const void *from;
	size_t bytes;         /* of a row */
	size_t rows, to_pitch, from_pitch; /* rows 0: one */
	cu_function function; /* launch */
	unsigned grid;
	cu_event event;   /* record, wait */
	uint64_t lap;     /* or the value to write or to wait for, at `to` */
	uint8_t parameters[4096];
};

struct cu_context_object {
	int ordinal, references;
	pid_t owner;       /* thread that retained it first */
	cu_result poison;  /* returned by every call once set */
	cu_stream streams; /* linked */
	cu_event events;   /* likewise */
	cu_stream turn;    /* whose operation runs next */
	size_t used;       /* bytes allocated */
};
struct cu_stream_object {
	cu_context context;
	cu_stream next;
	struct op *first, *last;
};
struct cu_event_object {
	cu_event next; /* of the context's: what an owner left is still the driver's */
	cu_context context;
	bool timed;
	uint64_t recorded, reached; /* laps */
	int64_t time;
};
struct cu_function_object {
	const char *name;
	size_t bytes; /* of its parameter */
	void (*run)(const void *parameters, unsigned grid);
	bool (*ready)(const void *parameters); /* null: at once */
};

struct standin_settings {
	int devices, version;
	_Atomic unsigned ops; /* a test may change it while a device is at work; relaxed */
	size_t memory;
	bool forget, rows, unknown;
	char missing[64];
	bool any_thread; /* may use any context */
};
extern struct standin_settings standin_settings;

_Noreturn void standin_misuse(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void standin_lock(void);
void standin_unlock(void);
int64_t standin_clock(void);
extern _Atomic uint64_t standin_objects; /* alive: what standin_live counts */

/* Count the call and see what is to become of it: CU_SUCCESS, an injected code, or STANDIN_HANG for a call that
 * queues work. A call that does not and is to hang stays inside. `context`: one must be current, and this thread's. */
cu_result standin_enter(enum standin_name name, bool context, bool queues);
cu_context standin_current(void);
void standin_set_current(cu_context context);
bool standin_missing(const char *name);
bool standin_released(void); /* what hangs may go on */

/* memory.c. `what` is for the sentence when memory is not what it must be. */
cu_result standin_allocate(cu_context context, size_t bytes, cu_address *out);
void standin_free(cu_context context, cu_address address);
cu_result standin_export(cu_address address, struct cu_ipc_handle *handle);
cu_result standin_import(cu_context context, const struct cu_ipc_handle *handle, cu_address *out);
void standin_close(cu_context context, cu_address address);
bool standin_range(cu_address address, cu_address *base, size_t *bytes);
void standin_check_device(cu_context context, cu_address address, uint64_t bytes, const char *what);
cu_result standin_register(cu_context context, void *memory, size_t bytes, bool portable, bool allocated);
cu_result standin_unregister(cu_context context, void *memory, bool allocated);
void standin_forget_host(cu_context context); /* under the lock */
void standin_check_host(cu_context context, const void *memory, size_t bytes, const char *what);

/* pieces.c: cuMemCreate and its relatives */
cu_result standin_piece_create(cu_context context, size_t bytes, cu_piece *out);
cu_result standin_piece_import(int fd, cu_piece *out);
cu_result standin_piece_export(cu_piece piece, int *fd);
void standin_piece_release(cu_piece piece);
cu_result standin_reserve(cu_context context, size_t bytes, cu_address *out);
void standin_unreserve(cu_address address, size_t bytes);
cu_result standin_map_piece(cu_address address, size_t bytes, cu_piece piece);
void standin_unmap_piece(cu_address address, size_t bytes);
cu_result standin_access(cu_context context, cu_address address, size_t bytes);
/* Under the lock: is this memory of mapped pieces that may be used, in one reserved range? Fills what is one to the driver. */
bool standin_mapped(cu_context context, cu_address address, uint64_t bytes, cu_address *base, size_t *extent);

/* stream.c */
cu_stream standin_stream_create(cu_context context);
void standin_stream_destroy(cu_stream stream);
void standin_push(cu_stream stream, struct op *op);
void standin_advance(cu_context context);
bool standin_idle(cu_context context);
cu_function standin_function(const char *name);

#endif
