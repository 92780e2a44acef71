/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/heap.h"

#include <stddef.h>

static struct ty_heap_node *merge(struct ty_heap_node *a, struct ty_heap_node *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->key < a->key) {
		struct ty_heap_node *swap = a;

		a = b;
		b = swap;
	}
	b->prev = a;
	b->next = a->child;
	if (b->next)
		b->next->prev = b;
	a->child = b;
	return a;
}

/* Merge a list of siblings: in pairs from the left, then the pairs from the right. */
static struct ty_heap_node *merge_all(struct ty_heap_node *first)
{
	struct ty_heap_node *pairs = NULL, *root = NULL;

	while (first) {
		struct ty_heap_node *a = first, *b = a->next, *pair;

		first = b ? b->next : NULL;
		a->next = NULL;
		if (b)
			b->next = NULL;
		pair = merge(a, b);
		pair->next = pairs;
		pairs = pair;
	}
	while (pairs) {
		struct ty_heap_node *next = pairs->next;

		pairs->next = NULL;
		root = merge(root, pairs);
		pairs = next;
	}
	if (root)
		root->prev = NULL;
	return root;
}

void ty_heap_insert(struct ty_heap *heap, struct ty_heap_node *node, int64_t key)
{
	*node = (struct ty_heap_node){.key = key};
	heap->top = merge(heap->top, node);
	heap->top->prev = NULL;
}

void ty_heap_remove(struct ty_heap *heap, struct ty_heap_node *node)
{
	struct ty_heap_node *rest = merge_all(node->child);

	if (heap->top == node) {
		heap->top = rest;
	} else {
		if (node->prev->child == node)
			node->prev->child = node->next;
		else
			node->prev->next = node->next;
		if (node->next)
			node->next->prev = node->prev;
		heap->top = merge(heap->top, rest);
		heap->top->prev = NULL;
	}
	node->child = node->next = node->prev = NULL;
}
