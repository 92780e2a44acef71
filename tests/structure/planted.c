/* SPDX-License-Identifier: Apache-2.0
 *
 * Violations for tools/check-structure --planted: compiled once for each name below, with PLANT_<name> defined. Never part
 * of a build.
 */
#define NEED(symbol)               \
	extern int symbol(void *); \
	int tyer_planted(void);    \
	int tyer_planted(void)     \
	{                          \
		return symbol(0);  \
	}

#if defined PLANT_pthread_mutex_lock /* plant: pthread_mutex_lock */
NEED(pthread_mutex_lock)
#elif defined PLANT_pthread_rwlock_wrlock /* plant: pthread_rwlock_wrlock */
NEED(pthread_rwlock_wrlock)
#elif defined PLANT_pthread_cond_wait /* plant: pthread_cond_wait */
NEED(pthread_cond_wait)
#elif defined PLANT_sem_wait /* plant: sem_wait */
NEED(sem_wait)
#elif defined PLANT_mtx_lock /* plant: mtx_lock */
NEED(mtx_lock)
#elif defined PLANT_cnd_wait /* plant: cnd_wait */
NEED(cnd_wait)
#elif defined PLANT_pthread_spin_lock /* plant: pthread_spin_lock */
NEED(pthread_spin_lock)
#elif defined PLANT_cuMemAlloc_v2 /* plant: cuMemAlloc_v2 */
NEED(cuMemAlloc_v2)
#elif defined PLANT_cudaMalloc /* plant: cudaMalloc */
NEED(cudaMalloc)
#endif
