/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/energy.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"

/* nvmlReturn_t and nvmlDevice_t, as every NVML has them. */
typedef int nvml_result;
typedef struct nvml_device_opaque *nvml_device;

struct rt_energy_meter {
    void *library;
    bool started;
    nvml_device device;
    nvml_result (*init)(void);
    nvml_result (*shutdown)(void);
    nvml_result (*find)(const char *bus_id, nvml_device *out);
    nvml_result (*read)(nvml_device device, unsigned long long *mj);
    const char *(*text)(nvml_result result);
};

static enum rt_status load(struct rt_energy_meter *m, struct rt_error *err)
{
    const struct {
        const char *name;
        void *to;
    } symbols[] = {{"nvmlInit_v2", &m->init},
                   {"nvmlShutdown", &m->shutdown},
                   {"nvmlDeviceGetHandleByPciBusId_v2", &m->find},
                   {"nvmlDeviceGetTotalEnergyConsumption", &m->read},
                   {"nvmlErrorString", &m->text}};
    m->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!m->library) {
        const char *const why = dlerror();
        return rt_fail(err, RT_ERR_UNSUPPORTED, "no energy counter: %s", why ? why : LIBRARY);
    }
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *const p = dlsym(m->library, symbols[i].name);
        RT_REQUIRE(p, err, RT_ERR_UNSUPPORTED, "no energy counter: " LIBRARY " lacks %s",
                   symbols[i].name);
        memcpy(symbols[i].to, &p, sizeof(p));
    }
    return RT_OK;
}

/* NVML's 0 is success. */
static enum rt_status check(const struct rt_energy_meter *m, const char *call, nvml_result result,
                            struct rt_error *err)
{
    RT_REQUIRE(result == 0, err, RT_ERR_UNSUPPORTED, "no energy counter: %s failed: %s (%d)", call,
               m->text(result), result);
    return RT_OK;
}

static enum rt_status start(struct rt_energy_meter *m, const struct rt_device_caps *caps,
                            struct rt_error *err)
{
    uint64_t unused;
    RT_TRY(load(m, err));
    RT_TRY(check(m, "nvmlInit", m->init(), err));
    m->started = true;
    RT_TRY(check(m, "nvmlDeviceGetHandleByPciBusId", m->find(caps->bus_id, &m->device), err));
    return rt_energy_read(m, &unused, err); /* a device may have none */
}

enum rt_status rt_energy_open(const struct rt_device_caps *caps, struct rt_energy_meter **out,
                              struct rt_error *err)
{
    *out = NULL;
    RT_REQUIRE(caps->kind == RT_DEVICE_KIND_CUDA, err, RT_ERR_UNSUPPORTED,
               "no energy counter: the host device has none");
    struct rt_energy_meter *m = calloc(1, sizeof(*m));
    RT_REQUIRE(m, err, RT_ERR_NOMEM, "out of host memory for an energy meter");
    const enum rt_status status = start(m, caps, err);
    if (status != RT_OK)
        rt_energy_close(&m);
    *out = m;
    return status;
}

enum rt_status rt_energy_read(struct rt_energy_meter *m, uint64_t *mj, struct rt_error *err)
{
    unsigned long long now = 0;
    RT_TRY(check(m, "nvmlDeviceGetTotalEnergyConsumption", m->read(m->device, &now), err));
    *mj = now;
    return RT_OK;
}

void rt_energy_close(struct rt_energy_meter **meter)
{
    struct rt_energy_meter *m = *meter;
    if (!m)
        return;
    if (m->started)
        (void)m->shutdown();
    if (m->library)
        (void)dlclose(m->library);
    free(m);
    *meter = NULL;
}
