/* SPDX-License-Identifier: Apache-2.0
 *
 * What tools/check-structure must not mistake for a violation: names that only resemble forbidden ones, and a forbidden
 * name that the object defines itself.
 */
#include <stdio.h>

extern int curl_easy_perform(void *), custom(void), semaphore_count(void), cudnn(void);
void sem_of_ours(void);

void sem_of_ours(void)
{
	puts("sem_wait");
}

int tyer_clean(void)
{
	sem_of_ours();
	return curl_easy_perform(NULL) + custom() + semaphore_count() + cudnn();
}
