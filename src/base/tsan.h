/* SPDX-License-Identifier: Apache-2.0
 *
 * What ThreadSanitizer cannot see: liburcu is not built with it, so the order that its table and its grace periods give is
 * told here. Nothing in other builds.
 */
#ifndef TY_BASE_TSAN_H
#define TY_BASE_TSAN_H

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
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

/* Everything before the release of an address comes before what follows an acquire of it. */
#define ty_tsan_acquire(addr) __tsan_acquire((void *)(addr))
#define ty_tsan_release(addr) __tsan_release((void *)(addr))

/* Around a call of liburcu's in which this thread allocates what a thread of liburcu's frees (or the other way round),
 * ordered by futexes and lists that are not seen. Nothing of ours runs inside. */
#define ty_tsan_library_begin() AnnotateIgnoreWritesBegin(__FILE__, __LINE__)
#define ty_tsan_library_end() AnnotateIgnoreWritesEnd(__FILE__, __LINE__)
#else
#define ty_tsan_library_begin() ((void)0)
#define ty_tsan_library_end() ((void)0)
#define ty_tsan_acquire(addr) ((void)(addr))
#define ty_tsan_release(addr) ((void)(addr))
#endif

#endif
