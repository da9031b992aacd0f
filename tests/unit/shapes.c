/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of shapes: what a bad line is told, what a good one gives, and its floor and class. */
#include "bench/shapes.h"
#include "bench/roofline.h"
#include "tests/unit/expect.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static enum rt_status read_line(const char *text, struct shape *out, struct rt_error *err)
{
    /* An allocation of its own, so that a sanitizer sees one byte too many. */
    char *copy = strdup(text);
    assert_non_null(copy);
    enum rt_status status = shape_read("bad.jsonl", 7, copy, out, err);
    free(copy);
    return status;
}

#define REST "\"s_q\": 1, \"kv_rank\": 512, \"rope_dim\": 64, \"page_size\": 64"
#define LENS ", \"kv_lens\": [4, 5]}"

struct bad {
    const char *text;
    const char *want[3];
};

static const struct bad BAD[] = {
    /* not an object on a line */
    {"", {"bad.jsonl:7: not JSON near column"}},
    {"[]", {"an object was expected"}},
    {"{}", {"heads is missing"}},
    {"{heads: 1}", {"not JSON near column"}},
    {"{\"heads\" 1}", {"not JSON near column"}},
    {"{\"heads\": 1,}", {"not JSON near column"}},
    {"{\"heads\": 1, " REST LENS " {}", {"goes on where the object should end"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [4, 5]", {"not JSON near column"}},
    {"{\"heads\": 1, \"heads\": 1, " REST LENS, {"heads is given twice"}},
    {"{\"heads\": 1, \"note\": {\"a\": [1, }, " REST LENS, {"not JSON near column"}},
    /* missing */
    {"{" REST LENS, {"heads is missing", "an integer from 1 to 128"}},
    {"{\"heads\": 1, " REST "}", {"kv_lens is missing", "a list of 1 to 4096 lengths"}},
    /* wrong types and values */
    {"{\"heads\": \"16\", " REST LENS, {"heads is \"16\"", "must be an integer from 1 to 128"}},
    {"{\"heads\": 16.5, " REST LENS, {"heads is 16.5: must be an integer"}},
    {"{\"heads\": 0, " REST LENS, {"heads is 0: must be"}},
    {"{\"heads\": -1, " REST LENS, {"heads is -1: must be"}},
    {"{\"heads\": 129, " REST LENS, {"heads is 129: must be"}},
    {"{\"heads\": 4294967297, " REST LENS, {"heads is 4294967297: must be"}},
    {"{\"heads\": 99999999999999999999999999999999999999999999, " REST LENS,
     {"must be an integer"}},
    {"{\"heads\": 1, \"s_q\": 9, \"kv_rank\": 512, \"rope_dim\": 64, \"page_size\": 64" LENS,
     {"s_q is 9: must be an integer from 1 to 8"}},
    {"{\"heads\": 1, \"s_q\": 1, \"kv_rank\": 500, \"rope_dim\": 64, \"page_size\": 64" LENS,
     {"kv_rank is 500: must be 256 or 512"}},
    {"{\"heads\": 1, \"s_q\": 1, \"kv_rank\": 512, \"rope_dim\": 16, \"page_size\": 64" LENS,
     {"rope_dim is 16: must be 0, 32 or 64"}},
    {"{\"heads\": 1, \"s_q\": 1, \"kv_rank\": 512, \"rope_dim\": 64, \"page_size\": 8" LENS,
     {"page_size is 8: must be 16, 32, 64 or 128"}},
    {"{\"heads\": 1, \"s_q\": 1, \"kv_rank\": 512, \"rope_dim\": 4294967295, \"page_size\": 8" LENS,
     {"rope_dim is 4294967295"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": 4}",
     {"kv_lens is 4: must be a list of 1 to 4096 lengths"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": []}", {"kv_lens is []"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [4, null]}", {"kv_lens[1] is null"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [4,]}", {"not JSON near column"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [4 5]}", {"not JSON near column"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [0]}", {"kv_lens[0] is 0", "from 1 to 1048576"}},
    {"{\"heads\": 1, " REST ", \"kv_lens\": [1048577]}", {"kv_lens[0] is 1048577"}},
    {"{\"kv_lens\": [9, 1], \"heads\": 1, \"s_q\": 2, \"kv_rank\": 512, \"rope_dim\": 64, "
     "\"page_size\": 64}",
     {"kv_lens[1] is 1: must be at least s_q, 2"}},
    {"{\"label\": 5, \"heads\": 1, " REST LENS, {"label is 5: must be a text"}},
    {"{\"label\": \"\", \"heads\": 1, " REST LENS, {"label has 0 bytes"}},
    {"{\"label\": \"\\x\", \"heads\": 1, " REST LENS, {"not JSON near column"}},
    {"{\"label\": \"\\u12\", \"heads\": 1, " REST LENS, {"not JSON near column"}},
    {"{\"label\": \"0123456789012345678901234567890123456789012345678901234567890123\", "
     "\"heads\": 1, " REST LENS,
     {"label has 64 bytes: must be a text of 1 to 63 bytes"}},
    {"{\"floor_us\": 0, \"heads\": 1, " REST LENS, {"floor_us is 0: must be a number above 0"}},
    {"{\"floor_us\": -1.5, \"heads\": 1, " REST LENS, {"floor_us is -1.5"}},
    {"{\"floor_us\": 1e999, \"heads\": 1, " REST LENS,
     {"floor_us is null: must be a number above 0"}},
    {"{\"flashmla_layer_us\": true, \"heads\": 1, " REST LENS, {"flashmla_layer_us is true"}},
};

static void bad_lines_are_told_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(BAD); i++) {
        struct shape shape, before;
        struct rt_error err = {0};
        memset(&shape, 0xa5, sizeof(shape));
        before = shape;
        enum rt_status status = read_line(BAD[i].text, &shape, &err);
        expect(BAD[i].text, status, &err, RT_ERR_CONFIG, BAD[i].want, COUNT(BAD[i].want));
        assert_memory_equal(&shape, &before, sizeof(shape));
    }
    struct shape shape;
    assert_int_equal(read_line("nothing", &shape, NULL), RT_ERR_CONFIG);
}

static void too_many_requests(void **state)
{
    (void)state;
    enum { BYTES = 64 + 3 * (RT_MAX_BATCH + 1) };
    char *text = malloc(BYTES);
    struct shape *shape = malloc(sizeof(*shape));
    struct rt_error err = {0};
    assert_non_null(text);
    assert_non_null(shape);
    for (uint32_t count = RT_MAX_BATCH; count <= RT_MAX_BATCH + 1; count++) {
        size_t used = (size_t)snprintf(text, BYTES, "{\"heads\": 1, " REST ", \"kv_lens\": [1");
        for (uint32_t i = 1; i < count; i++, used += 2)
            memcpy(text + used, ",1", 2);
        memcpy(text + used, "]}", 3);
        enum rt_status status = shape_read("long", 1, text, shape, &err);
        if (count == RT_MAX_BATCH) {
            assert_int_equal(status, RT_OK);
            assert_int_equal(shape->batch, RT_MAX_BATCH);
        } else {
            const char *const words[] = {"long:1: kv_lens has more than 4096 elements"};
            expect("4097 requests", status, &err, RT_ERR_CONFIG, words, 1);
        }
    }
    free(shape);
    free(text);
}

static void a_line_with_everything(void **state)
{
    (void)state;
    struct shape s;
    struct rt_error err = {0};
    const char *text =
        " {\"label\": \"a\\\"b \\u0041\\u00e9\\n\xc3\xa9\", \"note\": [{}, [], {\"x\": [null, "
        "true]}, "
        "\"]\"], \"floor_us\": 2.5e-1, \"flashmla_layer_us\": 10, \"flashmla_metadata_us\": 92.4,"
        "\"page_size\":16,\"rope_dim\":0,\"kv_rank\":512,\"s_q\":8,\"heads\":128,"
        "\"kv_lens\":[ 8 ,1048576]}\t\r";
    if (read_line(text, &s, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(s.label, "a\"b A\xc3\xa9?\xc3\xa9");
    assert_int_equal(s.heads, 128);
    assert_int_equal(s.query_len, 8);
    assert_int_equal(s.kv_lora_rank, 512);
    assert_int_equal(s.qk_rope_head_dim, 0);
    assert_int_equal(s.page_size, 16);
    assert_int_equal(s.batch, 2);
    assert_int_equal(s.lengths[0], 8);
    assert_int_equal(s.lengths[1], RT_MAX_LENGTH);
    assert_true(s.floor_us == 0.25 && s.peer_layer_us == 10 && s.peer_metadata_us == 92.4);
}

/* JSON has one kind of number. */
static void numbers_that_are_whole(void **state)
{
    (void)state;
    struct shape s;
    assert_int_equal(read_line("{\"heads\": 16.0, " REST LENS, &s, NULL), RT_OK);
    assert_int_equal(s.heads, 16);
    assert_int_equal(read_line("{\"heads\": 1.6e1, " REST LENS, &s, NULL), RT_OK);
    assert_int_equal(s.heads, 16);
}

static void a_line_without_label(void **state)
{
    (void)state;
    struct shape s;
    assert_int_equal(read_line("{\"heads\": 16, " REST LENS, &s, NULL), RT_OK);
    assert_string_equal(s.label, "b2 h16 q1 k4 ..");
    assert_true(s.floor_us == 0 && s.peer_layer_us == 0 && s.peer_metadata_us == 0);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void with_file(const char *text, enum rt_status want, const char *words, uint32_t count)
{
    char path[] = "/tmp/rt_shapes_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (long)strlen(text));
    close(fd);
    struct shapes shapes = {0};
    struct rt_error err = {0};
    enum rt_status status = shapes_load(path, &shapes, &err);
    unlink(path);
    if (want == RT_OK) {
        if (status != RT_OK)
            fail_msg("%s", err.message);
        assert_int_equal(shapes.count, count);
    } else {
        expect(text, status, &err, want, &words, 1);
        assert_null(shapes.list);
    }
    shapes_free(&shapes);
}

static void files_of_lines(void **state)
{
    (void)state;
    const char *one = "{\"heads\": 16, " REST LENS;
    char text[1024];
    (void)snprintf(text, sizeof(text), "\n%s\n \t\n\n%s", one, one);
    with_file(text, RT_OK, NULL, 2);
    (void)snprintf(text, sizeof(text), "%s\r\n%s\r\n", one, one);
    with_file(text, RT_OK, NULL, 2);
    (void)snprintf(text, sizeof(text), "%s\n\n{\"heads\": 0}\n", one);
    with_file(text, RT_ERR_CONFIG, ":3: heads is 0", 0);
    with_file("", RT_ERR_CONFIG, "no shape in it", 0);
    with_file(" \n", RT_ERR_CONFIG, "no shape in it", 0);
    struct shapes shapes = {0};
    struct rt_error err = {0};
    const char *words = "/nowhere/shapes.jsonl: ";
    expect("a file that is not there", shapes_load("/nowhere/shapes.jsonl", &shapes, &err), &err,
           RT_ERR_FILE, &words, 1);
}

/* Nobody writes to it: whoever opens it to read waits for ever. */
static void a_pipe_is_not_waited_for(void **state)
{
    (void)state;
    char folder[] = "/tmp/rt_shapes_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    struct shapes shapes = {0};
    struct rt_error err = {0};
    enum rt_status status = shapes_load(path, &shapes, &err);
    unlink(path);
    rmdir(folder);
    const char *words = "must be a regular file";
    expect("a pipe", status, &err, RT_ERR_FILE, &words, 1);
}

/* ---- floors and classes --------------------------------------------------------------------- */

/* Every shape that has a published floor: ours is the same, and the classes are as they were
 * published, 30 latency, 21 memory and 15 compute. */
static void floors_and_classes(void **state)
{
    (void)state;
    struct shapes shapes = {0};
    struct rt_error err = {0};
    uint32_t count[ROOFLINE_CLASSES] = {0};
    if (shapes_load(RT_TEST_SHAPES, &shapes, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(shapes.count, 66);
    for (uint32_t i = 0; i < shapes.count; i++) {
        struct shape *s = &shapes.list[i];
        struct roofline given = roofline_of(s, 0, RT_KV_BF16);
        assert_true(given.floor_us == s->floor_us);
        double published = s->floor_us;
        s->floor_us = 0;
        struct roofline own = roofline_of(s, 0, RT_KV_BF16);
        assert_true(fabs(own.floor_us - published) <= 0.006);
        assert_int_equal(own.of, given.of);
        count[own.of]++;
    }
    assert_int_equal(count[ROOFLINE_LATENCY], 30);
    assert_int_equal(count[ROOFLINE_MEMORY], 21);
    assert_int_equal(count[ROOFLINE_COMPUTE], 15);
    shapes_free(&shapes);
}

static void a_floor_by_hand(void **state)
{
    (void)state;
    struct shape s;
    assert_int_equal(read_line("{\"heads\": 16, " REST LENS, &s, NULL), RT_OK);
    struct roofline r = roofline_of(&s, 0, RT_KV_BF16);
    assert_true(r.flop == 2.0 * 1088 * 9 * 16);
    assert_true(r.bytes == 2.0 * (9 * 576 + 2 * 16 * 1088));
    assert_true(fabs(r.floor_us - r.bytes / 4559e3) < 1e-12);
    assert_string_equal(roofline_class_name(r.of), "latency");
    /* Over lists a key is read for every token that has it, and the first of two sees one less. */
    s.query_len = 2;
    s.batch = 1;
    s.lengths[0] = 9;
    r = roofline_of(&s, 20, RT_KV_BF16);
    assert_true(r.flop == 2.0 * 1088 * (8 + 9) * 16);
    assert_true(r.bytes == 2.0 * ((8 + 9) * 576 + 2 * 16 * 1088));
    r = roofline_of(&s, 4, RT_KV_BF16);
    assert_true(r.flop == 2.0 * 1088 * (4 + 4) * 16);
    r = roofline_of(&s, 4, RT_KV_V32);
    assert_true(r.bytes == (4 + 4) * 656 + 2.0 * 2 * 16 * 1088);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_lines_are_told_why), cmocka_unit_test(too_many_requests),
        cmocka_unit_test(a_line_with_everything), cmocka_unit_test(a_line_without_label),
        cmocka_unit_test(files_of_lines),         cmocka_unit_test(floors_and_classes),
        cmocka_unit_test(a_floor_by_hand),        cmocka_unit_test(a_pipe_is_not_waited_for),
        cmocka_unit_test(numbers_that_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
