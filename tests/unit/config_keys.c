/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of keys: that it is consistent in itself, and that docs/configuration.md has it.
 * usage: unit_config_keys [FILE.md]    with a file: writes the table into it, between its two marks
 */
#include "config/config.h"
#include "tests/unit/expect.h"

#include <stdlib.h>

#define DOCUMENT RT_TEST_DATA "/../../docs/configuration.md"
#define BEGIN "<!-- keys: written by unit_config_keys -->\n"
#define END "<!-- end of keys -->\n"

static const struct rt_key *key_at(uint32_t id)
{
    return rt_key_of((enum rt_key_id)id);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void test_consistent(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++) {
        const struct rt_key *key = key_at(id);
        bool is_list = key->holds == RT_HOLDS_LIST;
        bool is_double = key->holds == RT_HOLDS_NUMBER;
        bool is_word = key->holds == RT_HOLDS_CHOICE || key->holds == RT_HOLDS_WORD;
        assert_non_null(key->path);
        assert_true(key->must && key->must[0] && key->meaning && key->meaning[0]);
        assert_true(!is_list || (key->each && key->bytes == key->capacity * sizeof(uint32_t)));
        assert_true(!is_list || !key->preset || key->preset[0] == '[');
        assert_true(!is_double || key->bytes == sizeof(double));
        assert_true(!is_word || key->bytes == sizeof(uint32_t));
        assert_true(key->holds != RT_HOLDS_INTEGER || key->min <= key->max);
        assert_true(!key->required || !key->preset);
        for (uint32_t other = 0; other < id; other++) {
            assert_string_not_equal(key->path, key_at(other)->path);
            assert_true(key->offset != key_at(other)->offset);
        }
    }
}

/* Every default is a value that the file could have, and so good. */
static void test_defaults(void **state)
{
    (void)state;
    struct rt_config_draft draft;
    struct rt_key_fault fault;
    memset(&draft, 0xA5, sizeof(draft));
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++) {
        rt_key_reset((enum rt_key_id)id, &draft);
        if (!key_at(id)->required && !rt_key_check((enum rt_key_id)id, &draft, &fault))
            fail_msg("%s is %s: must be %s", key_at(id)->path, fault.value, fault.must);
    }
    assert_int_equal(draft.tensor_parallel, 1);
    assert_int_equal(draft.max_batch, 0);
    assert_null(draft.model_path);
}

/* ---- the document ---------------------------------------------------------------------------- */

static char *write_table(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    (void)fputs("| key | must be | default | meaning |\n|---|---|---|---|\n", f);
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++) {
        const struct rt_key *key = key_at(id);
        const char *quote = key->preset ? "`" : "";
        (void)fprintf(f, "| `%s` | %s | %s%s%s | %s |\n", key->path, key->must, quote,
                      key->preset ? key->preset : "–", quote, key->meaning);
    }
    assert_int_equal(fclose(f), 0);
    return text;
}

/* The text, and in it the place of the table and of what follows. */
static char *read_document(const char *path, char **table, char **rest)
{
    struct rt_error err = {.message = ""};
    char *text = NULL;
    size_t bytes = 0;
    if (rt_text_file_read(path, &text, &bytes, &err) != RT_OK)
        fail_msg("%s", err.message);
    text[bytes] = '\0';
    char *begin = strstr(text, BEGIN);
    *rest = begin ? strstr(begin, END) : NULL;
    if (!begin || !*rest) {
        fail_msg("%s has no marks: %s...%s", path, BEGIN, END);
        return text;
    }
    *table = begin + strlen(BEGIN);
    return text;
}

static void test_documented(void **state)
{
    (void)state;
    char *table = NULL, *rest = NULL;
    char *want = write_table();
    char *text = read_document(DOCUMENT, &table, &rest);
    if (rest)
        *rest = '\0';
    if (!table || strcmp(table, want) != 0)
        fail_msg("docs/configuration.md has another table of keys: unit_config_keys FILE writes "
                 "this\n%s",
                 want);
    free(text);
    free(want);
}

static int write_document(const char *path)
{
    char *table = NULL, *rest = NULL;
    char *want = write_table();
    char *text = read_document(path, &table, &rest);
    FILE *f = fopen(path, "w");
    if (!f)
        return EXIT_FAILURE;
    (void)fprintf(f, "%.*s%s%s", (int)(table - text), text, want, rest);
    free(text);
    free(want);
    return fclose(f) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consistent),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_documented),
    };
    if (argc > 1)
        return write_document(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
