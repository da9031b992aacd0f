/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `replayrt bench layer` and `bench prefill`, cut short at each of their driver and library calls
 * in turn: a sentence on stderr and exit code 1, and nothing is left on the device. Of each of
 * their tables, the memory of the weights and the runtimes', the n-th call fails. What is left on
 * the host is seen where this runs under AddressSanitizer or valgrind.
 *
 * usage: fail_bench CONFIG TRACE    of whole blocks; a folder with a model and its configuration
 */
#include "tests/support/fail_driver.h"
#include "tools/commands.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MOST_WORDS 32

static const char *config, *trace;

/* What the command says goes into files; cmocka talks behind it. */
struct quiet {
    FILE *out, *err;
    int real_out, real_err;
};

static struct quiet quieten(void)
{
    const struct quiet q = {
        .out = tmpfile(), .err = tmpfile(), .real_out = dup(1), .real_err = dup(2)};
    assert_true(q.out && q.err && q.real_out >= 0 && q.real_err >= 0);
    assert_true(fflush(stdout) == 0 && fflush(stderr) == 0);
    assert_true(dup2(fileno(q.out), 1) == 1 && dup2(fileno(q.err), 2) == 2);
    return q;
}

/* What was said on stderr, cut to its size. */
static void speak(const struct quiet *q, char *said, size_t bytes)
{
    assert_true(fflush(stdout) == 0 && fflush(stderr) == 0);
    assert_true(dup2(q->real_out, 1) == 1 && dup2(q->real_err, 2) == 2);
    rewind(q->err);
    said[fread(said, 1, bytes - 1, q->err)] = '\0';
    (void)fclose(q->out);
    (void)fclose(q->err);
    (void)close(q->real_out);
    (void)close(q->real_err);
}

struct command {
    int (*run)(int argc, char **argv);
    const char *config, *options;
    const char *checkpoint; /* or null */
};

/* True: the command came past its n-th calls. */
static bool cut_short(const struct command *command, uint64_t n)
{
    char path[512], words[512], said[1024], *argv[MOST_WORDS] = {path}, *rest = NULL;
    int argc = 1;
    (void)snprintf(path, sizeof(path), "%s", command->config);
    (void)snprintf(words, sizeof(words), "--device host --batch 1 --length 4 --steps 1 %s%s%s",
                   command->options, command->checkpoint ? " --checkpoint " : "",
                   command->checkpoint ? command->checkpoint : "");
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        assert_true(argc < MOST_WORDS);
        argv[argc++] = word;
    }
    fail_driver_arm(n);
    const struct quiet q = quieten();
    const int code = command->run(argc, argv);
    speak(&q, said, sizeof(said));
    fail_driver_arm(0);
    assert_int_equal(fail_driver_live(), 0);
    if (code != EXIT_OK) {
        assert_int_equal(code, EXIT_FAILED);
        if (strncmp(said, "replayrt: ", 10) != 0 || strlen(said) < 20)
            fail_msg("call %u: said \"%s\"", (unsigned)n, said);
    } else { /* all went well, or a release failed, on which nobody can act */
        assert_string_equal(said, "");
    }
    return !fail_driver_reached();
}

static void every_driver_call(const struct command *command, uint64_t stride)
{
    uint64_t n = 1;
    while (!cut_short(command, n))
        n += stride;
    print_message("%u calls\n", (unsigned)n);
    assert_true(n > 200);
}

static void of_layers(void **state)
{
    const struct command command = {cmd_bench_layer, config,
                                    "--heads 1 --layers 1 --versus-library", NULL};
    (void)state;
    every_driver_call(&command, 1);
}

static void of_prompts(void **state)
{
    const struct command command = {cmd_bench_prefill, config,
                                    "--heads 1 --layers 1 --tokens 3 --chunk 2", NULL};
    (void)state;
    every_driver_call(&command, 1);
}

/* A decoder's own calls fail one by one elsewhere: here every seventh, for time. */
static void of_a_model(void **state)
{
    char path[512];
    const struct command command = {cmd_bench_prefill, path, "--tokens 3 --chunk 2 --random 1",
                                    trace};
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/replayrt.yaml", trace);
    every_driver_call(&command, 7);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_layers), cmocka_unit_test(of_prompts),
                                       cmocka_unit_test(of_a_model)};
    if (argc != 3)
        return 2;
    config = argv[1];
    trace = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
