/* SPDX-License-Identifier: Apache-2.0
 *
 * What ThreadSanitizer cannot see: liburcu is not built with it, so the order that its table and its grace periods give is
 * told here. Nothing in other builds.
 */
#ifndef TY_CACHE_TSAN_H
#define TY_CACHE_TSAN_H

#if defined(__SANITIZE_THREAD__)
#define TY_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TY_TSAN 1
#endif
#endif

#ifdef TY_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);

/* Everything before the release of an address comes before what follows an acquire of it. */
#define ty_tsan_acquire(addr) __tsan_acquire((void *)(addr))
#define ty_tsan_release(addr) __tsan_release((void *)(addr))
#else
#define ty_tsan_acquire(addr) ((void)(addr))
#define ty_tsan_release(addr) ((void)(addr))
#endif

#endif
