/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_RT_CONFIG_H
#define REPLAYRT_RT_CONFIG_H

/*
 * What a runtime is made for: geometry, device, captured batch sizes, sequences, KV cache. Part of
 * replayrt/rt.h, whose laws hold here.
 */
#include "replayrt/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RT_MAX_BUCKETS 256
#define RT_MAX_QUERY_LENS 8
#define RT_MAX_QUERY_LEN 8
#define RT_MAX_HEADS 128
#define RT_MAX_LAYERS 1024
#define RT_MAX_BATCH 4096
#define RT_MAX_TOKENS (RT_MAX_BATCH * RT_MAX_QUERY_LEN) /* of all rows */
#define RT_MAX_SEQUENCES 65536
#define RT_MAX_CONTEXT_RANKS 64
#define RT_MAX_LENGTH 1048576
#define RT_MAX_HIDDEN 65536
#define RT_MAX_CHUNKS 8
#define RT_MAX_CHUNK 16384
#define RT_MAX_MIXES 8
#define RT_MAX_MIXED_ROWS 1024
#define RT_MAX_PREFILL_ROWS 256
#define RT_PREFILL_ROWS 8 /* where rt_config.prefill_rows is 0 */

/* Absorbed MLA as one GPU sees it. Served (d_qk/d_v): 576/512, 320/256, 288/256, 512/512. */
struct rt_geometry {
    uint32_t heads;            /* query heads on this GPU, 1..128, any number */
    uint32_t kv_lora_rank;     /* L: 512 or 256 */
    uint32_t qk_rope_head_dim; /* R: 64, 32 or 0 */
    uint32_t layers;           /* attention layers, >= 1 */
    /* Multiplies q·k. (qk_nope_head_dim + qk_rope_head_dim)^-0.5, times YaRN's mscale squared where
     * the model has it; never d_qk^-0.5. Mandatory, > 0. */
    double softmax_scale;
};

enum rt_rope_type {
    RT_ROPE_DEFAULT = 0, /* pair i turns by theta^(-2i / R) a position */
    RT_ROPE_NONE,        /* nothing turns: the R elements stay as they are */
    RT_ROPE_YARN,        /* NTK by parts: pairs that turn seldom are slowed down by `factor` */
    RT_ROPE_LONGROPE     /* every pair slowed down by a factor of its own */
};

/* Which two of the R elements are a pair; q and keys alike, so it is part of the cache's layout. */
enum rt_rope_order {
    RT_ROPE_INTERLEAVED = 0, /* (2i, 2i + 1) */
    RT_ROPE_HALF             /* (i, i + R / 2) */
};

#define RT_MAX_ROPE_PAIRS 32

/*
 * How positions turn the R elements of queries and keys, and scale queries. Pair (a, b) at position
 * p becomes (a cos x - b sin x, a sin x + b cos x) with x = p * (radians a position of its pair).
 * Fields and formulas are those of Hugging Face transformers (modeling_rope_utils), where a model's
 * config.json has them under rope_parameters. A field whose type is not this one's is ignored.
 */
struct rt_rope {
    enum rt_rope_type type;
    enum rt_rope_order order;
    double theta;                 /* > 1; rope_theta */
    double factor;                /* yarn: > 0 */
    uint32_t original_max_length; /* tokens, > 0; yarn, longrope and query_scale_beta */
    uint32_t truncate;            /* yarn: 1: the range of pairs in between is of whole numbers, as
                                     transformers does by default; 0: as it is */
    double beta_fast, beta_slow;  /* yarn: turns within original_max_length above which a pair keeps
                                     its speed, and below which it has 1 / factor; 32 and 1 */
    double attention_factor;      /* multiplies cosine and sine; 0: 1 */
    /* longrope: divides the speed of pair i, > 0. The long ones where the runtime's max_length is
     * above original_max_length, from the first token on: cached keys are not turned again. */
    double short_factor[RT_MAX_ROPE_PAIRS], long_factor[RT_MAX_ROPE_PAIRS];
    /* q *= 1 + beta * ln(1 + floor(position / original_max_length)); 0: none. Mistral's
     * llama_4_scaling_beta. */
    double query_scale_beta;
};

/*
 * What a token of the cache is; docs/kv_formats.md has every byte. Bytes a token are of 576/512,
 * where a layout has no other. A number in e4m3 is one byte, times a scale.
 */
enum rt_kv_layout {
    RT_KV_BF16 = 0,    /* 1152: d_qk bf16: normalised latent [L], rotated key part [R] */
    RT_KV_FP8_TENSOR,  /* 576: d_qk e4m3, one scale for all tokens of a layer */
    RT_KV_FP8_TOKEN,   /* 644: L e4m3 and R bf16; one f32 scale, behind the page's tokens */
    RT_KV_V32,         /* 656: L e4m3, an f32 scale for every 128 of them, R bf16; R > 0 */
    RT_KV_V32_NO_ROPE, /* 528: 512 e4m3, four f32 scales; of 512/512 */
    RT_KV_V4           /* 584: 448 e4m3 and 64 bf16; 7 scales that are powers of two, and a byte 0,
                          behind the page's tokens; of 512/512 */
};

enum rt_backend {
    RT_BACKEND_AUTO = 0, /* the fastest that serves the geometry here; reported with its reason */
    RT_BACKEND_GENERIC,  /* CUDA kernels for sm_80 and later; C references on the host device */
    RT_BACKEND_SM90      /* kernels for Hopper */
};

/* Where attention has smaller tiles: while few blocks of keys would leave multiprocessors idle, see
 * docs/small_tiles.md. Last bits of a row may change where its step's blocks cross a limit. */
enum rt_small_tiles {
    RT_SMALL_TILES_AUTO = 0, /* as static, and by further graphs in steps whose rows are short */
    RT_SMALL_TILES_STATIC,   /* where max_length keeps all steps within a limit */
    RT_SMALL_TILES_OFF       /* nowhere */
};

/* Which of the data tensors (q, latent, out, lse) every layer has of its own. */
enum rt_tensor_sharing {
    RT_TENSORS_SHARED = 0, /* one set, reused by layer after layer: what a model's stages want */
    RT_TENSORS_PER_LAYER   /* a set per layer: all layers' inputs may be given before one step */
};

/* ---- the MLA block around attention ---------------------------------------------------------- */

/* What a block has beside its attention; read where rt_config.layer is 1. Dimensions are multiples
 * of 8. */
struct rt_block {
    uint32_t hidden_size;
    uint32_t q_lora_rank;      /* 0: q straight from hidden */
    uint32_t qk_nope_head_dim; /* P */
    uint32_t v_head_dim;       /* V */
    double norm_eps;        /* of the low-rank vectors' norms: mostly 1e-6, whatever the model's */
    double input_norm_eps;  /* of the input's norm: the model's rms_norm_eps */
    uint32_t norm_one_plus; /* 1: norms multiply by 1 + weight */
    uint32_t reserved;
    double q_a_scale, kv_a_scale; /* multiply the normalised low-rank vectors */
    double residual_scale;        /* with input_norm: multiplies hidden where it is added to the
                                     residual; MiniCPM's scale_depth / sqrt(num_hidden_layers) */
    struct rt_rope rope;
};

enum rt_projections {
    RT_PROJECTIONS_AUTO = 0, /* for each product what is faster; reported with its reason */
    RT_PROJECTIONS_CUBLASLT, /* all by cuBLASLt, which is loaded then */
    RT_PROJECTIONS_OWN       /* all by kernels of this library */
};

enum rt_precision {
    RT_PRECISION_BF16 = 0,
    RT_PRECISION_F32 /* the host device alone: cache and data tensors are f32, for comparisons */
};

/*
 * Everything that has a shape, decided before the first token. Plain data without pointers: fill it
 * by hand after rt_config_default, or by rt_config_load.
 */
struct rt_config {
    uint32_t struct_size;
    struct rt_geometry geometry;
    /* "host", "cuda:N", or "auto": the first CUDA device that opens and is not older than sm_80;
     * the host where there is no driver or no device. A driver that fails is an error. */
    char device[32];

    uint32_t batch_sizes[RT_MAX_BUCKETS]; /* ascending, unique, 1..RT_MAX_BATCH */
    uint32_t batch_size_count;
    uint32_t query_lens[RT_MAX_QUERY_LENS]; /* ascending, unique, 1..8 */
    uint32_t query_len_count;
    /* Records, 2..64: replays that the host may run ahead. Each replay of a step takes one, each
     * chunk of rt_prefill and each control replay, such as the copy of a partly filled page for a
     * sequence that is opened, forked or rewound. A step's results (rt_result) are there until the
     * ring_depth-th record behind its first. No call waits for them to be read: who runs ahead
     * reads those of complete steps before the next call that launches. */
    uint32_t ring_depth;

    uint32_t max_sequences; /* slots, 1..RT_MAX_SEQUENCES */
    uint32_t max_length;    /* tokens of one sequence, 1..RT_MAX_LENGTH */

    enum rt_kv_layout kv_layout;
    uint32_t page_size;     /* tokens of a page: 16, 32, 64 or 128; 64 is the tuned one */
    uint64_t pages;         /* pages of the pool; 0: by memory_fraction */
    double memory_fraction; /* of the device memory free at create, arena included; (0, 1] */

    enum rt_backend backend;
    enum rt_tensor_sharing tensors;

    /* 1: every layer is a whole MLA block, hidden to hidden, see replayrt/layer.h. */
    uint32_t layer;
    uint32_t input_norm; /* 1, with layer: residual add and RMSNorm in front of every block */
    enum rt_projections projections;
    enum rt_precision precision;
    struct rt_block block;

    /* Prompts, a chunk of tokens in one replay: a graph for each chunk size, each number of rows
     * that decode beside it, 0 among them, each query length of these, 1 and query_lens, and each
     * number of pieces of cached context. */
    uint32_t chunks[RT_MAX_CHUNKS]; /* tokens, ascending, 1..RT_MAX_CHUNK */
    uint32_t chunk_count;           /* 0: prompts go in by rt_step alone */
    /* Sequences that share a chunk: 1..RT_MAX_PREFILL_ROWS; 0: the default. */
    uint32_t prefill_rows;
    /* Rows that decode beside a chunk, ascending, up to max_sequences. */
    uint32_t mixed_rows[RT_MAX_MIXES];
    uint32_t mixed_row_count;
    /* Cached tokens whose keys and values are expanded at once, at least max_length / 63. 0: that,
     * or 8192 where it is more. */
    uint32_t context_piece;

    /* Not 0: every query token attends to the keys that a list names, of so many entries at most;
     * a stage before attention leaves lists and counts (tensors sparse_indices, sparse_counts), of
     * every layer: RT_STAGE_INDEXER. 576/512 and 512/512, without context_parallel. Chunks are
     * absorbed then, so of RT_MAX_BATCH tokens at most. */
    uint32_t topk;
    uint32_t sinks; /* 1: every head has an attention sink, tensor attn_sink */
    /* Of RT_KV_FP8_TENSOR: what numbers of the cache are multiplied by when they are read, in every
     * layer; rt_create_params.kv_scales has one for each. Elsewhere 1. */
    double kv_scale;
    /* 1: batch-invariant attention: what it makes of a row has the same bits whatever graph, rows
     * and place in the batch the row is served with, and however many multiprocessors the device
     * has; see docs/invariant.md. Caches of bf16, without topk. */
    uint32_t invariant;
    /* Ranks of a group (replayrt/ranks.h) that have the tokens of a sequence between them, page by
     * page in turn, 1..RT_MAX_CONTEXT_RANKS; 1: each has all of them. Divides geometry.heads. With
     * layer, without sinks; batch size times query length is RT_MAX_BATCH at most. A page id stands
     * for context_parallel * page_size tokens then, of which each rank has page_size. */
    uint32_t context_parallel;
    /* 1, with layer: every block is a chain of kernels, also where one kernel does all of it, and
     * so is every MLP of a decoder's. */
    uint32_t split_blocks;
    enum rt_small_tiles small_tiles; /* not read with invariant, topk or context_parallel above 1 */
};

/* Defaults: device auto, buckets 1 2 4 8 16 32 64, query length 1, ring depth 8, 64 sequences of
 * 8192 tokens, bf16 pages of 64 tokens, memory 0.85, no chunks. The geometry is left zero. */
RT_API void rt_config_default(struct rt_config *config);

/*
 * Reads a YAML configuration, or a JSON one where its name ends in .json (docs/configuration.md
 * lists the keys). `model:` paths are relative to the configuration's own folder. Reads files, so
 * it blocks.
 * Returns RT_ERR_FILE (missing, unreadable), RT_ERR_CONFIG (file:line, key, value and what would be
 * valid), RT_ERR_GEOMETRY (a model that no kernel here serves).
 */
RT_API enum rt_status rt_config_load(const char *path, struct rt_config *config,
                                     struct rt_error *error);

/*
 * Sets the geometry, with all heads, and the block from a Hugging Face config.json, or that of a
 * folder; all other fields stay. What `model:` of a configuration does, without the file around it.
 * Blocks. RT_ERR_FILE, RT_ERR_CONFIG and RT_ERR_GEOMETRY as rt_config_load, with file, line and
 * key; a config of another struct_size than this library's is RT_ERR_INVALID. *config is as before
 * then.
 */
RT_API enum rt_status rt_config_model(const char *path, struct rt_config *config,
                                      struct rt_error *error);

/* Checks every field against its range and the others; what rt_create checks first. */
RT_API enum rt_status rt_config_check(const struct rt_config *config, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
