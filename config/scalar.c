/* SPDX-License-Identifier: Apache-2.0 */
#include "config/scalar.h"

#include "config/decimal.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

static bool is_plain(const struct rt_node *node)
{
    return node->kind == RT_NODE_SCALAR && !node->quoted && strlen(node->text) == node->text_bytes;
}

bool rt_scalar_is_null(const struct rt_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; is_plain(node) && i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(node->text, words[i]) == 0)
            return true;
    return false;
}

bool rt_scalar_is_text(const struct rt_node *node)
{
    return node->kind == RT_NODE_SCALAR && strlen(node->text) == node->text_bytes &&
           !rt_scalar_is_null(node);
}

bool rt_scalar_integer(const struct rt_node *node, uint64_t *out)
{
    if (!is_plain(node))
        return false;
    size_t count = rt_decimal_digits(node->text);
    if (count == 0 || node->text[count] != '\0' || (count > 1 && node->text[0] == '0'))
        return false;
    errno = 0;
    unsigned long long value = strtoull(node->text, NULL, 10);
    if (errno != 0)
        return false;
    *out = value;
    return true;
}

static bool is_decimal(const char *text)
{
    text += *text == '-' || *text == '+';
    size_t whole = rt_decimal_digits(text);
    text += whole;
    size_t fraction = 0;
    if (*text == '.') {
        fraction = rt_decimal_digits(++text);
        text += fraction;
    }
    if (whole + fraction == 0)
        return false;
    return rt_decimal_ends(text);
}

/* strtod takes 0.85 for 0 in some locales of the host program. The locale of this thread alone is
 * changed, and changed back. */
bool rt_scalar_number(const struct rt_node *node, double *out)
{
    if (!is_plain(node) || !is_decimal(node->text))
        return false;
    locale_t numeric = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (numeric == (locale_t)0)
        return false;
    locale_t before = uselocale(numeric);
    errno = 0;
    double value = strtod(node->text, NULL);
    int error = errno;
    (void)uselocale(before);
    freelocale(numeric);
    if (error != 0)
        return false;
    *out = value;
    return true;
}

bool rt_scalar_boolean(const struct rt_node *node, bool *out)
{
    if (!is_plain(node) || (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0))
        return false;
    *out = node->text[0] == 't';
    return true;
}
