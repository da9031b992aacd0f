/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a text: what YAML and JSON give alike, and what each refuses. */
#include "config/tree_read.h"

#include "config/scalar.h"
#include "tests/unit/expect.h"

#include <stdlib.h>

static enum rt_status read_text(const char *name, const char *text, size_t bytes,
                                struct rt_tree *tree, struct rt_error *err)
{
    /* An exact allocation, so that a sanitizer sees one byte too many. */
    char *copy = malloc(bytes ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    struct rt_source source = {.text = copy, .bytes = bytes};
    (void)snprintf(source.name, sizeof(source.name), "%s", name);
    enum rt_status status = rt_tree_read(&source, tree, err);
    free(copy);
    return status;
}

static void read_good(const char *name, const char *text, size_t bytes, struct rt_tree *tree)
{
    struct rt_error err = {.message = ""};
    if (read_text(name, text, bytes, tree, &err) != RT_OK)
        fail_msg("%s\n%s", text, err.message);
}

/* ---- what both read -------------------------------------------------------------------------- */

/* One line of a tree, such that two trees are alike where their lines are. */
static void print(FILE *f, const struct rt_node *node)
{
    static const char *const marks[] = {"", "[", "{"};
    if (node->key)
        (void)fprintf(f, "%.*s@%u:", (int)node->key_bytes, node->key, node->key_line);
    (void)fprintf(f, "%s", marks[node->kind]);
    if (node->kind == RT_NODE_SCALAR)
        (void)fprintf(f, "%s%.*s", node->quoted ? "'" : "", (int)node->text_bytes, node->text);
    (void)fprintf(f, "@%u/%u ", node->line, node->count);
    for (const struct rt_node *n = node->first; n; n = n->next)
        print(f, n);
}

static char *line_of(const char *name, const char *text)
{
    struct rt_tree tree;
    char *line = NULL;
    size_t bytes = 0;
    read_good(name, text, strlen(text), &tree);
    FILE *f = open_memstream(&line, &bytes);
    assert_non_null(f);
    print(f, tree.root);
    assert_int_equal(fclose(f), 0);
    rt_tree_free(&tree);
    return line;
}

static void test_alike(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "{\"a\": 1, \"b\": [], \"c\": {}, \"d\": [1, [2, {\"e\": null}], \"three\"]}",
        "{\n \"a\":\n  -1.5e-3,\n \"b\": [\n  true, false\n ],\n\n \"a\": \"twice\"}\n",
        "{\"\": \"\", \"quotes\": \"\\\" \\\\ \\/ \\b \\f \\n \\r \\t\", \"code\": "
        "\"\\u00e9\\u20AC\"}",
        "{\"utf8\": \"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\", \"x\": \"# & * ! | > { } [ ] , : "
        "?\"}",
        "\xEF\xBB\xBF{\"bom\": [[[[1]]]]}\r\n",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        char *yaml = line_of("a.yaml", texts[i]);
        char *json = line_of("a.json", texts[i]);
        assert_string_equal(yaml, json);
        free(yaml);
        free(json);
    }
}

static void test_lines(void **state)
{
    (void)state;
    struct rt_tree tree;
    static const char text[] = "a: 1\nb:\n  - x\n  - 'y'\nc:\n  d: |\n    z\n";
    read_good("a", text, strlen(text), &tree);
    const struct rt_node *b = rt_node_member(tree.root, "b");
    const struct rt_node *c = rt_node_member(tree.root, "c");
    assert_true(b->kind == RT_NODE_LIST && b->count == 2 && b->key_line == 2 && b->line == 3);
    assert_true(b->first->line == 3 && !b->first->quoted);
    assert_true(b->first->next->line == 4 && b->first->next->quoted && !b->first->next->next);
    assert_true(c->first->quoted && c->first->line == 6);
    assert_string_equal(c->first->text, "z\n");
    assert_null(rt_node_member(tree.root, "d"));
    rt_tree_free(&tree);
}

/* ---- JSON that YAML would not read ----------------------------------------------------------- */

static void test_json_alone(void **state)
{
    (void)state;
    static const char text[] =
        "\t{\"a\"\n\t:\n1, \"pair\": \"\\ud83d\\ude00\", \"half\": \"\\ud83d \\ude00\","
        " \"nul\": \"\\u0000\"}";
    struct rt_tree tree;
    char *text_long = malloc(8000);
    assert_non_null(text_long);
    read_good("A.JSON", text, strlen(text), &tree);
    assert_int_equal(rt_node_member(tree.root, "a")->line, 3);
    assert_string_equal(rt_node_member(tree.root, "pair")->text, "\xF0\x9F\x98\x80");
    assert_string_equal(rt_node_member(tree.root, "half")->text, "\xEF\xBF\xBD \xEF\xBF\xBD");
    assert_int_equal(rt_node_member(tree.root, "nul")->text_bytes, 1);
    assert_false(rt_scalar_is_text(rt_node_member(tree.root, "nul")));
    rt_tree_free(&tree);
    (void)snprintf(text_long, 8000, "{\"%05000d\": 7}", 0);
    read_good("a.json", text_long, strlen(text_long), &tree);
    assert_int_equal(tree.root->first->key_bytes, 5000);
    rt_tree_free(&tree);
    free(text_long);
}

/* ---- refusals -------------------------------------------------------------------------------- */

struct bad {
    const char *name, *text;
    const char *want[2];
};

#define JSON "a.json"
#define YAML "a.yaml"

static const struct bad BAD[] = {
    {JSON, "", {"a.json: is empty: must be JSON with keys"}},
    {JSON, "{", {"a.json:1: not JSON: did not find expected key"}},
    {JSON, "{\"a\"", {"a.json:1: not JSON: did not find expected ':' behind a key"}},
    {JSON, "{\"a\":", {"a.json:1: not JSON: a is nothing: must be a string in quotes, a number"}},
    {JSON, "{\"a\": 1", {"a.json:1: not JSON: did not find expected ',' or '}'"}},
    {JSON, "{\"a\": [1", {"a.json:1: not JSON: did not find expected ',' or ']'"}},
    {JSON, "{\"a\": [1 2]}", {"did not find expected ',' or ']'"}},
    {JSON, "{\"a\": [1,\n]}", {"a.json:2: not JSON: a value is nothing"}},
    {JSON, "{\"a\": 1,\n}", {"a.json:2: not JSON: did not find expected key"}},
    {JSON, "{,}", {"did not find expected key"}},
    {JSON, "{a: 1}", {"a.json:1: not JSON: did not find expected key in quotes"}},
    {JSON, "{\"a\": 'b'}", {"a.json:1: not JSON: a is 'b': must be"}},
    {JSON, "{\"a\": True}", {"not JSON: a is True"}},
    {JSON, "{\"a\": 010}", {"not JSON: a is 010"}},
    {JSON, "{\"a\": +1}", {"not JSON: a is +1"}},
    {JSON, "{\"a\": .5}", {"not JSON: a is .5"}},
    {JSON, "{\"a\": 1.}", {"not JSON: a is 1."}},
    {JSON, "{\"a\": 1e}", {"not JSON: a is 1e"}},
    {JSON, "{\"a\": -}", {"not JSON: a is -"}},
    {JSON, "{\"a\": 1} // c", {"a.json:1: a second document begins"}},
    {JSON, "{\"a\": \"b}", {"not JSON: did not find expected '\"' at the end of a string"}},
    {JSON, "{\"a\": \"b\\\"}", {"did not find expected '\"'"}},
    {JSON, "{\"a\": \"b\n\"}", {"did not find expected '\"'"}},
    {JSON, "{\"a\": \"\t\"}", {"control characters are not allowed"}},
    {JSON, "{\"a\": \"\\x41\"}", {"found unknown escape character"}},
    {JSON, "{\"a\": \"\\u12g4\"}", {"found unknown escape character"}},
    {JSON, "{\"a\": \"\\u12\"}", {"found unknown escape character"}},
    {JSON, "{\"a\": \"\xC0\x80\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\xC3\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\xED\xA0\x80\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\xE0\x9F\xBF\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\xF0\x8F\xBF\xBF\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\xF4\x90\x80\x80\"}", {"invalid UTF-8"}},
    {JSON, "{\"a\": \"\x80\"}", {"invalid UTF-8"}},
    {JSON, "7", {"a.json:1: the document is 7: must be a mapping"}},
    {YAML, "a: !!int 16\n", {"a.yaml:1: the tag tag:yaml.org,2002:int is not allowed: must be"}},
    {YAML, "a: !mine 16\n", {"the tag !mine is not allowed"}},
    {YAML, "a:\n  !!map {b: 1}\n", {"a.yaml:2: the tag tag:yaml.org,2002:map is not allowed"}},
    {YAML, "a: !!seq []\n", {"the tag tag:yaml.org,2002:seq is not allowed"}},
    {YAML, "? {b: 1}\n: 2\n", {"a.yaml:1: a key must be a word"}},
    {YAML, "a: &x 1\nb: *x\n", {"a.yaml:2: aliases are not allowed: write the value out"}},
    {YAML, "\xFF\xFEx", {"a.yaml:1: not YAML: it is UTF-16, must be UTF-8"}},
    {YAML, "\xFE\xFFx", {"it is UTF-16"}},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(BAD); i++) {
        struct rt_tree tree;
        struct rt_error err = {.message = ""};
        memset(&tree, 0xA5, sizeof(tree));
        enum rt_status status =
            read_text(BAD[i].name, BAD[i].text, strlen(BAD[i].text), &tree, &err);
        expect(BAD[i].text, status, &err, RT_ERR_CONFIG, BAD[i].want, COUNT(BAD[i].want));
        assert_true(!tree.root && !tree.blocks);
    }
}

/* A string is a string, whatever is in it. */
static void test_tagged(void **state)
{
    (void)state;
    static const char text[] = "a: !!str 16\nb: ! 16\nc: 16\nd: !!str\n";
    struct rt_tree tree;
    uint64_t value = 0;
    read_good("a.yaml", text, strlen(text), &tree);
    assert_false(rt_scalar_integer(rt_node_member(tree.root, "a"), &value));
    assert_false(rt_scalar_integer(rt_node_member(tree.root, "b"), &value));
    assert_true(rt_scalar_integer(rt_node_member(tree.root, "c"), &value) && value == 16);
    assert_false(rt_scalar_is_null(rt_node_member(tree.root, "d")));
    rt_tree_free(&tree);
}

/* ---- texts that would cost too much ---------------------------------------------------------- */

#define MEGABYTES ((size_t)4 << 20)

static void expect_large(const char *name, const char *head, const char *part, const char *want)
{
    const char *const wants[] = {want};
    char *text = malloc(MEGABYTES);
    struct rt_tree tree;
    struct rt_error err = {.message = ""};
    size_t used = strlen(head);
    assert_non_null(text);
    memcpy(text, head, used);
    for (uint32_t i = 0; MEGABYTES - used > 64; i++)
        used += (size_t)snprintf(text + used, MEGABYTES - used, part, i);
    expect(part, read_text(name, text, used, &tree, &err), &err, RT_ERR_CONFIG, wants, 1);
    free(text);
}

/* Each would take libyaml minutes, or the tree half a gigabyte. */
static void test_large(void **state)
{
    (void)state;
    expect_large(YAML, "", "%%TAG !a%u! tag:x,2000:\n", "a.yaml:17: more than 16 %TAG directives");
    expect_large(YAML, "a: 1\n...\n", "%%TAG !a%u! tag:x,2000:\n", "more than 16 %TAG directives");
    expect_large(YAML, "a: [", "1,", "a.yaml:1: more than 1048576 values");
    expect_large(JSON, "{\"a\": [1", ",1", "a.json:1: more than 1048576 values");
    expect_large(JSON, "{\"a\": ", "[", "a.json:1: nested deeper than 64 levels");
    expect_large(YAML, "a: ", "[", "a.yaml:1: nested deeper than 64 levels");
    expect_large(YAML, "a: ", "{b: ", "a.yaml:1: nested deeper than 64 levels");
}

/* 64 levels are read, by both. */
static void test_depth(void **state)
{
    (void)state;
    static const char *const names[] = {JSON, YAML};
    for (size_t i = 0; i < COUNT(names); i++) {
        struct rt_tree tree;
        char text[256] = "{\"a\":";
        size_t used = strlen(text);
        memset(text + used, '[', RT_TREE_MAX_DEPTH - 1);
        memset(text + used + RT_TREE_MAX_DEPTH - 1, ']', RT_TREE_MAX_DEPTH - 1);
        text[used + 2 * (size_t)(RT_TREE_MAX_DEPTH - 1)] = '}';
        read_good(names[i], text, strlen(text), &tree);
        rt_tree_free(&tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alike),      cmocka_unit_test(test_lines),
        cmocka_unit_test(test_json_alone), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tagged),     cmocka_unit_test(test_large),
        cmocka_unit_test(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
