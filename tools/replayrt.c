/* SPDX-License-Identifier: Apache-2.0 */
/* The command: picks the subcommand, explains it, nothing else. */
#include "replayrt/rt.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/nearest.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name; /* one word or two */
    int (*run)(int argc, char **argv);
    const char *help; /* its lines of replayrt --help; man/ says the same at length */
};

static const struct command commands[] = {
    {"plan", cmd_plan,
     "  plan CONFIG        every buffer, graph, stage and kernel that a runtime would have\n"
     "      --assume NAME  for a device that is elsewhere: h200, h100, a100 or host\n"
     "      --stages       list every graph's stages, equal layers as one\n"
     "      --ranks N      of a rank of N, with what they exchange in each graph\n"
     "      --checkpoint DIR\n"
     "                     of such, with what that model's decoder exchanges as well\n"
     "      --layouts      what each layout of the cache would hold, and nothing else\n"
     "      --dot BATCH    that batch size's graph, for Graphviz\n"
     "      --dot-chunk N  that of a chunk of N tokens of prompts\n"
     "      --beside ROWS  of such, beside so many rows that decode (0)\n"
     "      --context N    of such, with room for N cached tokens (0)\n"
     "      --query-len N  of either, with so many tokens a row that decodes (its first)\n"
     "      --json\n"
     "      Exit code 1 where arena and pool do not fit the device's memory.\n"},
    {"verify", cmd_verify,
     "  verify CONFIG      replay against eager, bitwise, on the configured device\n"
     "      --steps N      steps per graph (100)\n"
     "      --seed N       of the random history (1)\n"
     "      --ranks N      heads cut over N processes, as decode's; the first one tells\n"
     "      --context M    of the ranks, neighbours that share a sequence's tokens\n"
     "      --device NAME  instead of the configured one\n"
     "      --json         the result; progress goes to stderr\n"},
    {"decode", cmd_decode,
     "  decode             a checkpoint's tokens behind prompts, all prompts in one batch\n"
     "      --checkpoint DIR\n"
     "                     config.json and safetensors\n"
     "      --prompt-ids 5,7,9\n"
     "                     a prompt's token ids; again for another prompt\n"
     "      --max-new-tokens N\n"
     "                     for every prompt, fewer where it ends\n"
     "      --config FILE  batch sizes, cache and device (one graph for all, one for prompts)\n"
     "      --chunk N      tokens of prompts in one launch (all, up to 2048, or the "
     "configuration's);\n"
     "                     0: they go in one by one\n"
     "      --device NAME  auto, host or cuda:N (auto)\n"
     "      --ranks N      the model cut over N processes, rank r on cuda:r, or all on the host; "
     "with\n"
     "                     RANK in the environment this is one of them (torchrun)\n"
     "      --context M    of the ranks, neighbours that share a sequence's tokens (1, or the\n"
     "                     configuration's context_parallel)\n"
     "      --precision P  bf16, or f32 on the host (bf16)\n"
     "      --teacher-ids 1,2,3\n"
     "                     fed in place of what is generated; once, or for each prompt\n"
     "      --temperature T\n"
     "                     samples; 0: the likeliest token (0)\n"
     "      --top-k K, --top-p P\n"
     "                     of the K likeliest, of the likeliest that come to P (all)\n"
     "      --seed S       of sampling; the second prompt's is S + 1 (0)\n"
     "      --ignore-eos   does not end before --max-new-tokens\n"
     "      --random SEED  random weights; DIR needs a config.json alone, or is one\n"
     "      --dump FILE    logits and tokens, as safetensors\n"
     "      --json\n"},
    {"bench step", cmd_bench_step,
     "  bench step CONFIG  what a step costs on the host and on the GPU\n"
     "      --batch N      one captured batch size (all)\n"
     "      --query-len N  one captured query length (the first)\n"
     "      --length N     tokens of every sequence (4096; pages are made for it)\n"
     "      --steps N      measured steps (200)\n"
     "      --ranks N      heads cut over N processes, as decode's; the first one tells\n"
     "      --ragged       rows of 1 to the query length, by chance\n"
     "      --device NAME  instead of the configured one\n"
     "      --json\n"},
    {"bench layer", cmd_bench_layer,
     "  bench layer CONFIG what a whole block costs a layer, and each of its stages; with layer: "
     "true\n"
     "      --batch N      one captured batch size (all)\n"
     "      --query-len N  one captured query length (the first)\n"
     "      --length N     tokens of every sequence (4096; pages are made for it)\n"
     "      --steps N      measured steps (100)\n"
     "      --heads N      instead of the configured ones\n"
     "      --layers N     instead of the configured ones\n"
     "      --ranks N      heads cut over N processes, as decode's; the first one tells\n"
     "      --context M    of the ranks, neighbours that share a sequence's tokens\n"
     "      --versus-library\n"
     "                     again with every product by cuBLASLt\n"
     "      --no-block     blocks as chains of kernels, also where one kernel serves\n"
     "      --device NAME  instead of the configured one\n"
     "      --json\n"},
    {"bench prefill", cmd_bench_prefill,
     "  bench prefill CONFIG\n"
     "                     what prompts cost a layer, and a step beside one; with layer: true\n"
     "      --checkpoint DIR\n"
     "                     in the whole model of that folder, MLPs and all\n"
     "      --random SEED  random weights for it; of the folder config.json alone is read\n"
     "      --tokens N     one prompt's length (512, 2048 and 8192)\n"
     "      --chunk N      tokens that rows decode beside (512)\n"
     "      --batch N      of such rows (8)\n"
     "      --length N     tokens of each such row (4096; pages are made for it)\n"
     "      --steps N      measured steps (20)\n"
     "      --heads N      instead of the configured ones\n"
     "      --layers N     instead of the configured ones\n"
     "      --tflops X, --gbps X\n"
     "                     peaks that floors are of (784, 4559: an H200's, measured)\n"
     "      --device NAME  instead of the configured one\n"
     "      --json\n"},
    {"bench attention", cmd_bench_attention,
     "  bench attention    what attention costs a layer, for every shape of a list\n"
     "      --shapes FILE  the list, an object a line; see docs/bench_attention.md\n"
     "      --out FILE     all figures, an object a line\n"
     "      --backend NAME auto, sm90 or generic (auto)\n"
     "      --device NAME  auto, host or cuda:N (auto)\n"
     "      --only TEXT    shapes whose label has it\n"
     "      --layout NAME  of the KV cache: bf16, fp8_tensor, v32, ...; no whole steps else\n"
     "      --topk N       over lists of N keys of every query token; no whole steps\n"
     "      --small-tiles NAME\n"
     "                     auto or off (auto)\n"
     "      --no-step      leave the whole steps out\n"
     "      --sustained N  also steps of 61 layers back to back for N seconds\n"
     "      --invariant    batch-invariant attention instead of the fastest\n"},
    {"bench convert", cmd_bench_convert,
     "  bench convert      what a cache costs in another layout, from each to each\n"
     "      --batch N      sequences (64)\n"
     "      --length N     tokens of each (8192)\n"
     "      --page-size N  tokens of a page (64)\n"
     "      --steps N      measured replays (20)\n"
     "      --device NAME  auto, host or cuda:N (auto)\n"
     "      --json\n"},
    {"bench allreduce", cmd_bench_allreduce,
     "  bench allreduce    what the sum of ranks behind o_proj costs, by its size\n"
     "      --ranks N      processes, rank r on cuda:r; as decode's\n"
     "      --steps N      measured replays (100)\n"
     "      --device host  all on the host device\n"
     "      --json\n"},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static const char usage[] = "usage: replayrt COMMAND CONFIG [options]\n"
                            "       replayrt COMMAND [options]\n\n";
static const char closing[] =
    "\n"
    "  --version, --help; replayrt COMMAND --help for one command's part\n"
    "\n"
    "Exit code: 0 done, 1 failed, 2 the command line is wrong, or asks for more than the\n"
    "configuration or the model that it names has.\n";

/* All of it, or where `group` is not null that of the commands which begin with its words. */
static void print_help(FILE *to, const char *group)
{
    fputs(usage, to);
    for (int i = 0; i < COMMANDS; i++)
        if (!group || !strncmp(commands[i].name, group, strlen(group)))
            fputs(commands[i].help, to);
    fputs(closing, to);
}

static bool is_help(const char *word)
{
    return !strcmp(word, "--help") || !strcmp(word, "-h");
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (is_help(argv[i]))
            return true;
    return false;
}

/* How many of the words name the command: 0 where they do not. */
static int words_of(const struct command *command, int argc, char **argv)
{
    const char *space = strchr(command->name, ' ');
    size_t first = space ? (size_t)(space - command->name) : strlen(command->name);
    if (strlen(argv[0]) != first || strncmp(argv[0], command->name, first) != 0)
        return 0;
    if (!space)
        return 1;
    return argc > 1 && !strcmp(argv[1], space + 1) ? 2 : 0;
}

#define BENCHES                                                                                    \
    "bench step, bench layer, bench prefill, bench attention, bench convert and bench allreduce"

/* The first word of commands of two. */
static bool is_group(const char *word)
{
    return !strcmp(word, "bench");
}

static int unknown(int argc, char **argv)
{
    char typed[64];
    snprintf(typed, sizeof(typed), "%s%s%s", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
    const char *names[COMMANDS + 2] = {[COMMANDS] = "help", "version"};
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *meant = nearest(argv[0] + strspn(argv[0], "-"), names, COMMANDS + 2);
    if (!meant)
        meant = nearest(typed, names, COMMANDS);
    const bool option = meant && (meant == names[COMMANDS] || meant == names[COMMANDS + 1]);
    const bool group = is_group(argv[0]);
    complain("unknown command %s%s%s%s%s; there are %s" BENCHES,
             group || (meant && strchr(meant, ' ')) ? typed : argv[0],
             meant ? "; did you mean " : "", option ? "--" : "", meant ? meant : "",
             meant ? "?" : "", group ? "" : "plan, verify, decode, ");
    return EXIT_USAGE;
}

static int run(int argc, char **argv)
{
    for (int i = 0; argc > 0 && i < COMMANDS; i++) {
        const int words = words_of(&commands[i], argc, argv);
        if (!words)
            continue;
        if (!asks_for_help(argc - words, argv + words))
            return commands[i].run(argc - words, argv + words);
        print_help(stdout, commands[i].name);
        return EXIT_OK;
    }
    if (argc == 1 && !strcmp(argv[0], "--version")) {
        printf("replayrt %s\n", rt_version());
        return EXIT_OK;
    }
    const bool group = argc > 0 && is_group(argv[0]);
    if (argc > 0 && is_help(argv[argc - 1]) && (argc == 1 || group)) {
        print_help(stdout, group ? argv[0] : NULL);
        return EXIT_OK;
    }
    if (argc == 1 && group) {
        complain("which bench? there are " BENCHES "; see replayrt bench --help");
        return EXIT_USAGE;
    }
    if (argc > 0)
        return unknown(argc, argv);
    print_help(stderr, NULL);
    return EXIT_USAGE;
}

/* Results that never arrived are a failure too: a full disk, a closed pipe. */
int main(int argc, char **argv)
{
    json_begin();
    /* A line is out when it is complete: whoever follows a log sees how far a long run has come. */
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    int code = run(argc - 1, argv + 1);
    bool lost = ferror(stdout) != 0;
    if ((fflush(stdout) != 0 || lost) && code == EXIT_OK) {
        fputs("replayrt: standard output could not be written\n", stderr);
        return EXIT_FAILED;
    }
    return code;
}
