/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_COMMANDS_H
#define RT_TOOLS_COMMANDS_H

/* What replayrt.c picks from. Each gets the arguments behind its name and returns an exit code. The
 * six of bench/ are declared here as well: the program knows their names and nothing else there.
 */

/* Exit codes of the command. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int cmd_decode(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_bench_allreduce(int argc, char **argv);
int cmd_bench_attention(int argc, char **argv);
int cmd_bench_convert(int argc, char **argv);
int cmd_bench_layer(int argc, char **argv);
int cmd_bench_prefill(int argc, char **argv);
int cmd_bench_step(int argc, char **argv);

#endif
