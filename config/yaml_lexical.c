/* SPDX-License-Identifier: Apache-2.0 */
#include "config/yaml_lexical.h"

#include <string.h>

struct rt_yaml_scalar rt_yaml_scalar_of(const yaml_event_t *event)
{
    return (struct rt_yaml_scalar){
        .text = (const char *)event->data.scalar.value,
        .length = event->data.scalar.length,
        .quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE,
    };
}

/* The spellings that libcyaml takes for null. */
static bool is_null(const struct rt_yaml_scalar *scalar)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (scalar->quoted)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(scalar->text, words[i]) == 0)
            return true;
    return false;
}

static size_t digits(const char *text)
{
    return strspn(text, "0123456789");
}

static bool is_unsigned_integer(const char *text)
{
    size_t count = digits(text);
    return count > 0 && text[count] == '\0' && (count == 1 || text[0] != '0');
}

static bool is_decimal(const char *text)
{
    text += *text == '-' || *text == '+';
    size_t whole = digits(text);
    text += whole;
    size_t fraction = 0;
    if (*text == '.') {
        text++;
        fraction = digits(text);
        text += fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        size_t exponent = digits(text);
        if (exponent == 0)
            return false;
        text += exponent;
    }
    return *text == '\0';
}

bool rt_yaml_scalar_fits(const struct rt_yaml_scalar *scalar, const cyaml_schema_value_t *schema)
{
    bool null_allowed = (schema->flags & CYAML_FLAG_POINTER_NULL) == CYAML_FLAG_POINTER_NULL;
    if (strlen(scalar->text) != scalar->length)
        return false;
    if (is_null(scalar))
        return null_allowed;
    if (schema->type == CYAML_UINT)
        return !scalar->quoted && is_unsigned_integer(scalar->text);
    if (schema->type == CYAML_FLOAT)
        return !scalar->quoted && is_decimal(scalar->text);
    if (schema->type == CYAML_BOOL)
        return !scalar->quoted &&
               (strcmp(scalar->text, "true") == 0 || strcmp(scalar->text, "false") == 0);
    return true;
}

void rt_yaml_show(const char *text, size_t length, char out[RT_YAML_VALUE_BYTES])
{
    static const char mark[] = "...";
    size_t room = RT_YAML_VALUE_BYTES - 1;
    size_t kept = length <= room ? length : room - (sizeof(mark) - 1);
    memcpy(out, text, kept);
    for (size_t i = 0; i < kept; i++)
        if (out[i] < ' ' || out[i] > '~')
            out[i] = '?';
    if (kept < length) {
        memcpy(out + kept, mark, sizeof(mark) - 1);
        kept += sizeof(mark) - 1;
    }
    out[kept] = '\0';
}

void rt_yaml_show_scalar(const struct rt_yaml_scalar *scalar, char out[RT_YAML_VALUE_BYTES])
{
    if (!scalar->quoted) {
        bool nothing = scalar->length == 0;
        rt_yaml_show(nothing ? "null" : scalar->text, nothing ? 4 : scalar->length, out);
        return;
    }
    rt_yaml_show(scalar->text, scalar->length, out);
    size_t length = strlen(out);
    if (length > RT_YAML_VALUE_BYTES - 3)
        length = RT_YAML_VALUE_BYTES - 3;
    memmove(out + 1, out, length);
    out[0] = '"';
    out[length + 1] = '"';
    out[length + 2] = '\0';
}

const char *rt_yaml_type_name(cyaml_type_e type)
{
    switch (type) {
    case CYAML_UINT:
        return "an integer, not negative";
    case CYAML_FLOAT:
        return "a number";
    case CYAML_BOOL:
        return "true or false";
    case CYAML_STRING:
        return "a string";
    case CYAML_SEQUENCE:
        return "a list";
    case CYAML_MAPPING:
        return "a mapping";
    default:
        return "a value of another type";
    }
}
