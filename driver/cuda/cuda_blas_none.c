/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_device.h"

static enum rt_status open_blas(struct rt_driver *d, struct rt_error *err)
{
    (void)d;
    return rt_fail(err, RT_ERR_UNSUPPORTED,
                   "this build has no cuBLASLt: its toolkit has no "
                   "cublasLt.h; `projections: own` needs none");
}

static int matmul_prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                          struct rt_matmul_plan **out)
{
    (void)m;
    (void)most;
    (void)out;
    return rt_probe_enter(d, RT_DOP_matmul_prepare) ? RT_DRIVER_INJECTED : CUDA_ERROR_NOT_SUPPORTED;
}

static int matmul_select(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    (void)plan;
    (void)i;
    return rt_probe_enter(d, RT_DOP_matmul_select) ? RT_DRIVER_INJECTED : CUDA_ERROR_NOT_SUPPORTED;
}

static int matmul_release(struct rt_driver *d, struct rt_matmul_plan *plan)
{
    (void)plan;
    return rt_probe_enter(d, RT_DOP_matmul_release) ? RT_DRIVER_INJECTED : CUDA_ERROR_NOT_SUPPORTED;
}

static int matmul(struct rt_driver *d, const struct rt_matmul *m, rt_dstream s)
{
    (void)m;
    (void)s;
    return rt_probe_enter(d, RT_DOP_matmul) ? RT_DRIVER_INJECTED : CUDA_ERROR_NOT_SUPPORTED;
}

bool rt_cuda_blas_error_text(struct rt_cuda *c, int code)
{
    (void)c;
    (void)code;
    return false;
}

void rt_cuda_close_blas(struct rt_cuda *c)
{
    (void)c;
}

void rt_cuda_bind_blas(struct rt_driver *d)
{
    d->open_blas = open_blas;
    d->matmul_prepare = matmul_prepare;
    d->matmul_select = matmul_select;
    d->matmul_release = matmul_release;
    d->matmul = matmul;
}
