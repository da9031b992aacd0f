/* SPDX-License-Identifier: Apache-2.0 */
/* The command: picks the subcommand, nothing else. */
#include "replayrt/rt.h"
#include "tools/commands.h"
#include "tools/json.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: replayrt COMMAND CONFIG [options]\n"
    "\n"
    "  plan CONFIG        every buffer, graph, stage and kernel that a runtime would have\n"
    "      --assume NAME  for a device that is elsewhere: h200, h100, a100 or host\n"
    "      --stages       list every stage of every graph\n"
    "      --dot BATCH    that batch size's graph, for Graphviz\n"
    "      --json\n"
    "  verify CONFIG      replay against eager, bitwise, on the configured device\n"
    "      --steps N      steps per graph (100)\n"
    "      --seed N       of the random history (1)\n"
    "      --device NAME  instead of the configured one\n"
    "  bench step CONFIG  what a step costs on the host and on the GPU\n"
    "      --batch N      one captured batch size (all)\n"
    "      --query-len N  one captured query length (the first)\n"
    "      --length N     tokens of every sequence (4096; pages are made for it)\n"
    "      --steps N      measured steps (200)\n"
    "      --device NAME  instead of the configured one\n"
    "      --json\n"
    "  bench attention    what attention costs a layer, for every shape of a list\n"
    "      --shapes FILE  the list, an object a line; see docs/bench_attention.md\n"
    "      --out FILE     all figures, an object a line\n"
    "      --backend NAME auto, sm90 or generic (auto)\n"
    "      --device NAME  auto, host or cuda:N (auto)\n"
    "      --only TEXT    shapes whose label has it\n"
    "      --no-step      leave the whole steps out\n"
    "\n"
    "  --version, --help\n"
    "\n"
    "Exit code: 0 done, 1 failed, 2 the command line is wrong.\n";

static int run(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(help, stdout);
        return EXIT_OK;
    }
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        printf("replayrt %s\n", rt_version());
        return EXIT_OK;
    }
    if (argc >= 2 && !strcmp(argv[1], "plan"))
        return cmd_plan(argc - 2, argv + 2);
    if (argc >= 2 && !strcmp(argv[1], "verify"))
        return cmd_verify(argc - 2, argv + 2);
    if (argc >= 3 && !strcmp(argv[1], "bench") && !strcmp(argv[2], "step"))
        return cmd_bench_step(argc - 3, argv + 3);
    if (argc >= 3 && !strcmp(argv[1], "bench") && !strcmp(argv[2], "attention"))
        return cmd_bench_attention(argc - 3, argv + 3);
    if (argc >= 2)
        fprintf(stderr, "replayrt: unknown command %s\n", argv[1]);
    fputs(help, stderr);
    return EXIT_USAGE;
}

/* Results that never arrived are a failure too: a full disk, a closed pipe. */
int main(int argc, char **argv)
{
    json_begin();
    int code = run(argc, argv);
    bool lost = ferror(stdout) != 0;
    if ((fflush(stdout) != 0 || lost) && code == EXIT_OK) {
        fputs("replayrt: standard output could not be written\n", stderr);
        return EXIT_FAILED;
    }
    return code;
}
