/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_SCALAR_H
#define RT_CONFIG_SCALAR_H

/*
 * What a scalar says, read strictly: numbers are plain decimals without quotes, integers without
 * sign, leading zeros, fraction or exponent; a boolean is true or false; nothing is rounded,
 * clipped or wrapped to fit; no text has a NUL in it. False, and *out untouched, where a node does
 * not say such a thing, as no list and no mapping does.
 */
#include "config/tree.h"

/* null as YAML 1.1 spells it. */
bool rt_scalar_is_null(const struct rt_node *node);
/* Anything else. */
bool rt_scalar_is_text(const struct rt_node *node);
bool rt_scalar_integer(const struct rt_node *node, uint64_t *out);
/* Finite, whatever the locale of the program. */
bool rt_scalar_number(const struct rt_node *node, double *out);
bool rt_scalar_boolean(const struct rt_node *node, bool *out);

#endif
