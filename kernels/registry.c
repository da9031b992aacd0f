/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/registry.h"

#include "kernels/abi/append.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/experts_many.h"
#include "kernels/abi/experts_sm90.h"
#include "kernels/abi/gate.h"
#include "kernels/abi/input_norm.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/prefill_sm90.h"
#include "kernels/abi/project.h"
#include "kernels/abi/project_many.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/abi/step.h"
#include "kernels/images.h"
#include "kernels/ref/ref.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* griddepcontrol.wait is of sm_90; below it a programmatic edge would be a race. */
#define WAITS_FROM_CC 90u

#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    RT_STATIC_ASSERT(sizeof(params_) <= RT_LAUNCH_PARAM_BYTES, #entry_ " parameters");             \
    RT_STATIC_ASSERT(sizeof(#entry_) <= RT_LAUNCH_NAME_BYTES, #entry_ " name");
#include "kernels/kernels.inc"

static const struct rt_kernel_entry kernel_entries[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    {.entry = #entry_,                                                                             \
     .image = RT_IMAGE_##image_,                                                                   \
     .param_bytes = sizeof(params_),                                                               \
     .address_mask = (addresses_),                                                                 \
     .smem_bytes = (smem_),                                                                        \
     .waits = (waits_)},
#include "kernels/kernels.inc"
};
#define ENTRY_COUNT ((uint32_t)(sizeof(kernel_entries) / sizeof(kernel_entries[0])))

struct image_line {
    const char *name;
    uint32_t cc_min, cc_max;
};

static const struct image_line image_lines[] = {
#define RT_IMAGE(name_, cc_min_, cc_max_)                                                          \
    {.name = #name_, .cc_min = (cc_min_), .cc_max = (cc_max_)},
#include "kernels/images.inc"
};

const struct rt_kernel_entry *rt_kernel_entries(uint32_t *count)
{
    *count = ENTRY_COUNT;
    return kernel_entries;
}

static const struct rt_built_image *find_built(const char *name)
{
    const struct rt_built_image *built = rt_built_images;
    while (built->name && strcmp(built->name, name) != 0)
        built++;
    return built->name ? built : NULL;
}

static enum rt_status load_image(struct rt_kernels *k, uint32_t index, struct rt_error *err)
{
    const struct image_line *line = &image_lines[index];
    const struct rt_device_caps *caps = &k->driver->caps;
    struct rt_image image = {.host_kernels = rt_ref_kernels,
                             .host_kernel_count = rt_ref_kernel_count};
    if (caps->kind == RT_DEVICE_KIND_CUDA) {
        const struct rt_built_image *built = find_built(line->name);
        if (!built || caps->cc < line->cc_min || caps->cc > line->cc_max)
            return RT_OK;
        image.fatbin = built->fatbin;
        image.fatbin_bytes = (size_t)((const char *)built->end - (const char *)built->fatbin);
    }
    return RT_DRV(k->driver, err, library_load, (k->driver, &image, &k->libraries[index]));
}

static bool smem_fits(const struct rt_device_caps *caps, const struct rt_kernel_entry *entry)
{
    return caps->kind == RT_DEVICE_KIND_HOST || entry->smem_bytes <= caps->smem_optin_bytes;
}

static enum rt_status load_entry(struct rt_kernels *k, uint32_t index, struct rt_error *err)
{
    const struct rt_kernel_entry *entry = &kernel_entries[index];
    struct rt_driver *d = k->driver;
    if (!k->libraries[entry->image] || !smem_fits(&d->caps, entry))
        return RT_OK;

    rt_dkernel kernel = NULL;
    RT_TRY(RT_DRV(d, err, kernel_get, (d, k->libraries[entry->image], entry->entry, &kernel)));
    uint32_t bytes = 0;
    RT_TRY(RT_DRV(d, err, kernel_param_bytes, (d, kernel, &bytes)));
    RT_REQUIRE(bytes == entry->param_bytes, err, RT_ERR_INTERNAL,
               "kernel %s takes %u bytes of parameters, the library would give it %u", entry->entry,
               bytes, entry->param_bytes);
    if (entry->smem_bytes > 0)
        RT_TRY(RT_DRV(d, err, kernel_set_smem, (d, kernel, entry->smem_bytes)));
    k->kernels[index] = kernel;
    return RT_OK;
}

enum rt_status rt_kernels_load(struct rt_driver *d, struct rt_kernels *out, struct rt_error *err)
{
    enum rt_status status = RT_OK;
    *out = (struct rt_kernels){.driver = d,
                               .cc = d->caps.cc,
                               .libraries = calloc(RT_IMAGE_COUNT, sizeof(*out->libraries)),
                               .kernels = calloc(ENTRY_COUNT, sizeof(*out->kernels))};
    if (!out->libraries || !out->kernels) {
        status = rt_fail(err, RT_ERR_NOMEM, "no memory for the tables of %u kernels", ENTRY_COUNT);
        goto fail;
    }
    for (uint32_t i = 0; i < RT_IMAGE_COUNT; i++)
        RT_TRY_GOTO(load_image(out, i, err));
    for (uint32_t i = 0; i < ENTRY_COUNT; i++)
        RT_TRY_GOTO(load_entry(out, i, err));
    return RT_OK;
fail:
    rt_kernels_unload(out);
    return status;
}

void rt_kernels_unload(struct rt_kernels *k)
{
    for (uint32_t i = RT_IMAGE_COUNT; k->libraries && i-- > 0;)
        if (k->libraries[i])
            k->driver->library_unload(k->driver, k->libraries[i]);
    free(k->libraries);
    free(k->kernels);
    *k = (struct rt_kernels){0};
}

static enum rt_status fail_missing(const struct rt_kernels *k, const struct rt_kernel_entry *entry,
                                   struct rt_error *err)
{
    const struct rt_device_caps *caps = &k->driver->caps;
    const struct image_line *line = &image_lines[entry->image];
    if (!find_built(line->name))
        return rt_fail(err, RT_ERR_UNSUPPORTED, "kernel %s: this build has no CUDA code for it",
                       entry->entry);
    if (!smem_fits(caps, entry))
        return rt_fail(err, RT_ERR_UNSUPPORTED,
                       "kernel %s needs %u bytes of shared memory per block, %s has %u",
                       entry->entry, entry->smem_bytes, caps->name, caps->smem_optin_bytes);
    return rt_fail(err, RT_ERR_UNSUPPORTED,
                   "kernel %s is for compute capability %u.%u and later, %s has %u.%u",
                   entry->entry, line->cc_min / 10, line->cc_min % 10, caps->name, caps->cc / 10,
                   caps->cc % 10);
}

enum rt_status rt_kernels_launch(const struct rt_kernels *k, const char *entry, const void *params,
                                 uint32_t param_bytes, struct rt_launch *out, struct rt_error *err)
{
    uint32_t i = 0;
    while (i < ENTRY_COUNT && strcmp(kernel_entries[i].entry, entry) != 0)
        i++;
    RT_REQUIRE(i < ENTRY_COUNT, err, RT_ERR_INTERNAL, "no kernel is named %s", entry);
    const struct rt_kernel_entry *line = &kernel_entries[i];
    RT_REQUIRE(param_bytes == line->param_bytes, err, RT_ERR_INTERNAL,
               "kernel %s takes %u bytes of parameters, not %u", entry, line->param_bytes,
               param_bytes);
    if (k->driver && !k->kernels[i])
        return fail_missing(k, line, err);

    *out = (struct rt_launch){.kernel = k->driver ? k->kernels[i] : NULL,
                              .entry = line->entry,
                              .smem_bytes = line->smem_bytes,
                              .waits = line->waits && (k->cc == 0 || k->cc >= WAITS_FROM_CC),
                              .param_bytes = param_bytes,
                              .address_mask = line->address_mask};
    memcpy(out->params, params, param_bytes);
    return RT_OK;
}

enum rt_status rt_kernels_check_resident(const struct rt_kernels *k, const struct rt_launch *l,
                                         struct rt_error *err)
{
    struct rt_driver *const d = k->driver;
    const uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    const uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    uint32_t most = 0;
    if (!d || !l->cooperative)
        return RT_OK;
    RT_TRY(RT_DRV(d, err, kernel_resident_blocks, (d, l->kernel, threads, l->smem_bytes, &most)));
    RT_REQUIRE(blocks <= most, err, RT_ERR_UNSUPPORTED,
               "kernel %s: its %" PRIu64 " blocks wait for each other, and %s holds %u of them at "
               "the same time",
               l->entry, blocks, d->caps.name, most);
    return RT_OK;
}
