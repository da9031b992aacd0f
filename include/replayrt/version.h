/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_VERSION_H
#define REPLAYRT_VERSION_H

/* The only place where the version is written; the build reads it from here. */
#define RT_VERSION_MAJOR 0
#define RT_VERSION_MINOR 1
#define RT_VERSION_PATCH 0

#endif
