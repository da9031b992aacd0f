/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_STATUS_H
#define REPLAYRT_STATUS_H

#if defined(__GNUC__)
#define RT_API __attribute__((visibility("default")))
#define RT_PRINTF_LIKE(text, values) __attribute__((cold, format(printf, text, values)))
#else
#define RT_API
#define RT_PRINTF_LIKE(text, values)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Every fallible function returns one of these. Numbers are frozen once released; families leave
 * gaps for later members. The kind is the code; the story, with the values in it, is the message
 * in struct rt_error or rt_last_error().
 */
#define RT_STATUS_LIST(X)                                                                          \
    X(RT_OK, 0, "ok")                                                                              \
    /* what the caller asked for */                                                                \
    X(RT_ERR_INVALID, 10, "invalid argument")                                                      \
    X(RT_ERR_CONFIG, 12, "invalid configuration")                                                  \
    X(RT_ERR_FILE, 14, "file cannot be read")                                                      \
    X(RT_ERR_GEOMETRY, 16, "model geometry is impossible")                                         \
    X(RT_ERR_UNSUPPORTED, 18, "not supported here")                                                \
    /* what has run out */                                                                         \
    X(RT_ERR_NOMEM, 20, "out of host memory")                                                      \
    X(RT_ERR_DEVICE_MEMORY, 22, "out of device memory")                                            \
    X(RT_ERR_PAGES, 24, "out of KV cache pages")                                                   \
    X(RT_ERR_BUSY, 26, "too many steps in flight")                                                 \
    X(RT_ERR_TIMEOUT, 28, "time ran out")                                                          \
    /* sequences and rows of a step */                                                             \
    X(RT_ERR_SEQUENCE, 30, "unknown or closed sequence")                                           \
    X(RT_ERR_LENGTH, 32, "sequence length out of range")                                           \
    X(RT_ERR_ROWS, 34, "row count out of range")                                                   \
    X(RT_ERR_DUPLICATE, 36, "sequence named twice in one step")                                    \
    X(RT_ERR_QUERY_LEN, 38, "query length was not captured")                                       \
    X(RT_ERR_SLOTS, 40, "all sequence slots are open")                                             \
    /* the device */                                                                               \
    X(RT_ERR_NO_DEVICE, 50, "no such device")                                                      \
    X(RT_ERR_DRIVER, 52, "driver call failed")                                                     \
    X(RT_ERR_AUDIT, 54, "graph audit failed")                                                      \
    X(RT_ERR_DEVICE_CHECK, 56, "the device refused a step record")                                 \
    X(RT_ERR_CALLBACK, 58, "a stage's function failed")                                            \
    /* the other ranks */                                                                          \
    X(RT_ERR_RANKS, 60, "ranks disagree, or one is gone")                                          \
    /* ourselves */                                                                                \
    X(RT_ERR_INTERNAL, 90, "internal error")

enum rt_status {
#define RT_STATUS_ENUM(name, number, text) name = number,
    RT_STATUS_LIST(RT_STATUS_ENUM)
#undef RT_STATUS_ENUM
};

/*
 * The kind and the story of one failure. Owned by the caller; {0} (C) or {} (C++) is an empty one.
 * Functions that take a struct rt_error accept NULL. It is written on failure only.
 */
struct rt_error {
    enum rt_status status;
    /* One sentence on one line, NUL-terminated, with the offending values in it. Control characters
     * of a name in it, and bytes that are no UTF-8, are written as \xNN. */
    char message[508];
};

/* The fixed text of a status ("out of KV cache pages"), never NULL, static storage. */
RT_API const char *rt_status_string(enum rt_status status);

/*
 * A failure of a program's own, told as the library tells its: the story is formatted as printf
 * does, escaped, cut where it is too long, and may hold error's own message. Returns `status`, so
 * that it can stand behind `return`. error may be null.
 */
RT_API enum rt_status rt_error_set(struct rt_error *error, enum rt_status status,
                                   const char *format, ...) RT_PRINTF_LIKE(3, 4);

#ifdef __cplusplus
}
#endif
#endif
