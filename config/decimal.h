/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_DECIMAL_H
#define RT_CONFIG_DECIMAL_H

/* Parts of a decimal number's text, which YAML and JSON have alike. */
#include <stdbool.h>
#include <string.h>

static inline size_t rt_decimal_digits(const char *text)
{
    return strspn(text, "0123456789");
}

/* Whether what stands behind its digits ends it: nothing, or an exponent and nothing else. */
static inline bool rt_decimal_ends(const char *text)
{
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        const size_t exponent = rt_decimal_digits(text);
        if (exponent == 0)
            return false;
        text += exponent;
    }
    return *text == '\0';
}

#endif
