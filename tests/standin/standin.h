/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for the CUDA driver: the part of it that Tyer uses, over host memory, for machines without a GPU. Built as
 * libcuda.so.1. What it is for:
 *   - the owner's real code runs anywhere;
 *   - every call is on record, with its thread;
 *   - any call can fail or hang, at a chosen count;
 *   - misuse ends the process with a sentence on stderr: memory that is not allocated or not registered, freed too early, the
 *     legacy stream, a thread that does not own the context, a call that would wait for queued work. Calls that always wait
 *     (synchronize, host functions, synchronous copies) do not exist.
 *
 * Work that is put into a stream runs when an event is queried: so many operations a query, in turn over the context's
 * streams, each in order. Nothing runs by itself, so every test is repeatable.
 *
 * Settings, in the environment variable TYER_STANDIN, comma-separated:
 *   devices=N      how many there are; 2
 *   ops=N          operations that run at one query; 2
 *   memory=BYTES   of each device; 4 GiB
 *   version=N      of the driver; 13000
 *   threads=any    any thread may use any context, one at a time: for programs that are not built as Tyer is
 *   rows=1         rows of a strided copy may go from one mapped piece of memory to the next; 0
 *   unknown=1      a handle that is none is answered with "unknown error", as some drivers do; 0: "invalid value"
 *   forget=1       registered host memory ends with its context, as with a GPU; else it stays, so that a test sees the leak
 *   missing=NAME   this function is none of the driver's
 *   fail=NAME:NTH:CODE   the NTH call of NAME (from 1) returns CODE; a sticky CODE poisons the context
 *   hang=NAME:NTH        the NTH call of NAME never comes back, or, if it queues work, that work never runs
 */
#ifndef TY_STANDIN_H
#define TY_STANDIN_H

#include <stdbool.h>
#include <stdint.h>

#define STANDIN_HANG (-1) /* as a code */
#define STANDIN_MAGIC 0x74796572u

/* What lies in an IPC handle's 64 bytes. A test may open /proc/<pid>/fd/<fd> to look at the memory itself. */
struct standin_handle {
	uint32_t magic;
	int32_t pid, fd;
	uint32_t device;
	uint64_t bytes;
	uint8_t unused[40];
};

/* Looked up with dlsym. All but the last two may be called from any thread. */
typedef uint64_t standin_calls_fn(void);                 /* "standin_calls": of the driver, in all */
typedef uint64_t standin_count_fn(const char *name);     /* "standin_count": calls of one function */
typedef unsigned standin_threads_fn(const char *name);   /* "standin_threads_seen": in calls of NAME; null = of any */
typedef void standin_fail_fn(const char *name, uint64_t nth, int code); /* "standin_fail": counted from now */
typedef void standin_set_fn(const char *settings);       /* "standin_set": as in the environment; devices= only before cuInit */
typedef void standin_release_fn(void);                   /* "standin_release": lets hanging calls and work go on */
typedef uint64_t standin_queued_fn(void);                /* "standin_queued": operations that the fullest stream holds. Contexts' own thread */
typedef uint64_t standin_live_fn(void);                  /* "standin_live": allocations, imports, registrations, streams, events */

#endif
