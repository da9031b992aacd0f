/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_STRICT_JSON_H
#define RT_EXAMPLES_STRICT_JSON_H

/*
 * What cJSON lets pass and two readers of one file may take differently: text that is no UTF-8, a
 * NUL, which ends a C string early, and a key that stands twice.
 */
#include "replayrt/status.h"

#include <cjson/cJSON.h>
#include <stddef.h>

/* What is wrong with the text, before it is parsed, and *at which byte; null: nothing. */
const char *strict_json_objection(const unsigned char *text, size_t bytes, size_t *at);

/* RT_ERR_FILE where a key stands twice in the object, which `label` and `where` name in the
 * message; RT_ERR_NOMEM. */
enum rt_status strict_json_keys(const cJSON *object, const char *label, const char *where,
                                struct rt_error *error);

#endif
