/* SPDX-License-Identifier: Apache-2.0
 *
 * Static probes for bpftrace, perf and systemtap: provider "tyer". Where sys/sdt.h is there at build time each is one nop
 * in the code and a note in the ELF that says where its arguments are; else nothing. tools/actors.bt uses them.
 *
 *	send   actor number of the receiver, its class's name, type, message's address
 *	run    actor number, class's name, handler's name, message's address
 *	park   worker's index, or actor number of a dedicated one; 0 worker, 1 dedicated
 *	wake   the same, of the thread that is woken
 *	drop   actor number, class's name, type, message's address
 */
#ifndef TY_RUNTIME_PROBES_H
#define TY_RUNTIME_PROBES_H

#if TY_PROBES
#include <sys/sdt.h>
#define TY_PROBE2(name, a, b) DTRACE_PROBE2(tyer, name, a, b)
#define TY_PROBE4(name, a, b, c, d) DTRACE_PROBE4(tyer, name, a, b, c, d)
#else
#define TY_PROBE2(name, a, b) ((void)0)
#define TY_PROBE4(name, a, b, c, d) ((void)0)
#endif

#endif
