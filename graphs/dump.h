/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_DUMP_H
#define RT_GRAPHS_DUMP_H

/* A program as Graphviz DOT: stage labels, grids, kernels; dashed edges are programmatic. */
#include "graphs/program.h"

#include <stddef.h>

/* Writes at most `capacity` bytes with a final NUL; returns the bytes needed, NUL included. */
size_t rt_program_dot(const struct rt_program *p, char *text, size_t capacity);

#endif
