// What ggml-metal-device.m and ggml-metal-context.m are on macOS: a Metal device, whose kernels the shim runs on the CPU.
// The rest of the backend is upstream's own code with our series.

#include "metal_stdlib"

#undef device
#undef constant
#undef thread
#undef threadgroup
#undef kernel

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-context.h"
#include "ggml-metal-device.h"
#include "ggml-metal-fusion.h"
#include "ggml-metal-impl.h"
#include "ggml-metal-ops.h"
#include "ggml-metal-turbo.h"
#include "ggml-metal.h"

#include <memory>

//
// function constants and pipelines
//

struct cv_value {
    unsigned char bytes[4];
    size_t        size;
    bool          is_bool;
};

struct ggml_metal_cv {
    std::map<int, cv_value> values;
};

struct ggml_metal_pipeline {
    std::string             kernel;
    std::map<int, cv_value> values;
};

struct ggml_metal_library {
    ggml_metal_device_t    dev;
    ggml_metal_pipelines_t pipelines;
};

ggml_metal_cv_t ggml_metal_cv_init(void) {
    return new ggml_metal_cv;
}

void ggml_metal_cv_free(ggml_metal_cv_t cv) {
    delete cv;
}

template <typename T> static void cv_set(ggml_metal_cv_t cv, T value, int32_t idx) {
    cv_value & v = cv->values[idx];
    v.size       = sizeof(T);
    v.is_bool    = std::is_same<T, bool>::value;
    memcpy(v.bytes, &value, sizeof(T));
}

void ggml_metal_cv_set_int16(ggml_metal_cv_t cv, int16_t value, int32_t idx) {
    cv_set(cv, value, idx);
}

void ggml_metal_cv_set_int32(ggml_metal_cv_t cv, int32_t value, int32_t idx) {
    cv_set(cv, value, idx);
}

void ggml_metal_cv_set_bool(ggml_metal_cv_t cv, bool value, int32_t idx) {
    cv_set(cv, value, idx);
}

void ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline) {
    delete pipeline;
}

int ggml_metal_pipeline_max_theads_per_threadgroup(ggml_metal_pipeline_with_params) {
    return 1024;
}

ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t lib) {
    return lib->dev;
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t lib, const char * name) {
    ggml_metal_pipeline_with_params res = {};
    res.pipeline                        = ggml_metal_pipelines_get(lib->pipelines, name);
    return res;
}

// MSL_LOG_KERNELS=1 prints each kernel that is asked for
ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(ggml_metal_library_t lib,
                                                                    const char *         base,
                                                                    const char *         name,
                                                                    ggml_metal_cv_t      cv) {
    static const bool log = getenv("MSL_LOG_KERNELS");
    if (log) {
        fprintf(stderr, "kernel: %s as %s\n", base, name);
    }
    if (!msl_the_library().kernels.count(base)) {
        GGML_ABORT("there is no kernel %s", base);
    }
    ggml_metal_pipeline_with_params res = {};
    res.pipeline                        = new ggml_metal_pipeline{ base, cv ? cv->values : std::map<int, cv_value>{} };
    ggml_metal_pipelines_add(lib->pipelines, name, res.pipeline);
    return res;
}

//
// encoder: runs at once what it is told to
//

struct ggml_metal_encoder {
    ggml_metal_pipeline_t      pipeline = nullptr;
    std::vector<unsigned char> bytes;
    msl_launch                 launch;
};

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t, bool) {
    return new ggml_metal_encoder;
}

void ggml_metal_encoder_free(ggml_metal_encoder_t encoder) {
    delete encoder;
}

void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}

void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t) {}

void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t) {}

void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t) {}

void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t encoder, ggml_metal_pipeline_with_params pipeline) {
    encoder->pipeline = pipeline.pipeline;
    encoder->launch   = {};
}

void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t encoder, void * data, size_t size, int idx) {
    GGML_ASSERT(idx == 0);
    encoder->bytes.assign((unsigned char *) data, (unsigned char *) data + size);
    encoder->launch.buffers[idx] = encoder->bytes.data();
}

void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t encoder, ggml_metal_buffer_id buffer, int idx) {
    encoder->launch.buffers[idx] = (unsigned char *) buffer.metal + buffer.offs;
}

void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t encoder, size_t size, int idx) {
    GGML_ASSERT(idx == 0 && size % 16 == 0);
    encoder->launch.threadgroup_memory.assign(size, 0);
}

// What a pipeline does not set is garbage, so that a kernel that needs it goes wrong.
static void set_constants(const ggml_metal_pipeline & pipeline) {
    for (const auto & [idx, constants] : msl_the_library().constants) {
        for (const msl_function_constant & constant : constants) {
            const auto it = pipeline.values.find(idx);
            if (it == pipeline.values.end()) {
                memset(constant.value, constant.is_bool ? 1 : 0x55, constant.size);
                continue;
            }
            if (it->second.size != constant.size || it->second.is_bool != constant.is_bool) {
                GGML_ABORT("function constant %d of %s has another type in the shader", idx, pipeline.kernel.c_str());
            }
            memcpy(constant.value, it->second.bytes, constant.size);
        }
    }
}

void ggml_metal_encoder_dispatch_threadgroups(ggml_metal_encoder_t encoder,
                                              int                  tg0,
                                              int                  tg1,
                                              int                  tg2,
                                              int                  tptg0,
                                              int                  tptg1,
                                              int                  tptg2) {
    encoder->launch.threadgroups = uint3(tg0, tg1, tg2);
    encoder->launch.threads      = uint3(tptg0, tptg1, tptg2);
    set_constants(*encoder->pipeline);
    msl_run(encoder->launch, msl_the_library().kernels.at(encoder->pipeline->kernel));
}

//
// device
//

struct ggml_metal_device {
    ggml_metal_device_props  props;
    ggml_metal_library       library;
    ggml_metal_fusion_info * finfo;
};

ggml_metal_device_t ggml_metal_device_init(int index, int) {
    auto * dev = new ggml_metal_device{};

    ggml_metal_device_props & props = dev->props;
    props.device                    = index;
    snprintf(props.name, sizeof(props.name), "MTL%d", index);
    snprintf(props.desc, sizeof(props.desc), "Metal shaders as C++");
    props.max_buffer_size            = (size_t) 4 << 30;
    props.max_working_set_size       = (size_t) 8 << 30;
    props.max_theadgroup_memory_size = 32768;
    props.has_simdgroup_reduction    = true;
    props.has_simdgroup_mm           = true;
    props.has_unified_memory         = true;
    props.use_shared_buffers         = true;
    props.gpu_family                 = 7;
    props.op_offload_min_batch_size  = 1 << 30;

    dev->library = { dev, ggml_metal_pipelines_init() };
    dev->finfo   = ggml_metal_fusion_info_init(true, 0);

    GGML_ASSERT(msl_the_library().twice.empty());
    return dev;
}

void ggml_metal_device_free(ggml_metal_device_t dev) {
    ggml_metal_pipelines_free(dev->library.pipelines);
    ggml_metal_fusion_info_free(dev->finfo);
    delete dev;
}

ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t dev) {
    return &dev->library;
}

const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t dev) {
    return &dev->props;
}

ggml_metal_fusion_info * ggml_metal_device_get_fusion_info(ggml_metal_device_t dev) {
    return dev->finfo;
}

const char * ggml_metal_device_id_token(ggml_metal_device_id) {
    return "shim";
}

void ggml_metal_device_get_memory(ggml_metal_device_t dev, size_t * free, size_t * total) {
    *free = *total = dev->props.max_working_set_size;
}

// only what the series adds: the rest is upstream's and runs on the CPU
bool ggml_metal_device_supports_op(ggml_metal_device_t dev, const ggml_tensor * op) {
    return ggml_op_is_empty(op->op) ||
           (ggml_turbo_involved(op) && ggml_metal_turbo_supports_op(&dev->props, op));
}

ggml_metal_event_t ggml_metal_device_event_init(ggml_metal_device_t) {
    return (ggml_metal_event_t) calloc(1, 1);
}

void ggml_metal_device_event_free(ggml_metal_device_t, ggml_metal_event_t ev) {
    free(ev);
}

void ggml_metal_device_event_synchronize(ggml_metal_device_t, ggml_metal_event_t) {}

//
// buffers
//

struct ggml_metal_buffer {
    unsigned char * base;
    bool            owned;
};

ggml_metal_buffer_t ggml_metal_buffer_init(ggml_metal_device_t, size_t size, bool) {
    return new ggml_metal_buffer{ (unsigned char *) aligned_alloc(4096, GGML_PAD(size + 1, 4096)), true };
}

ggml_metal_buffer_t ggml_metal_buffer_map(ggml_metal_device_t, void * ptr, size_t, size_t) {
    return new ggml_metal_buffer{ (unsigned char *) ptr, false };
}

void ggml_metal_buffer_free(ggml_metal_buffer_t buf) {
    if (buf->owned) {
        free(buf->base);
    }
    delete buf;
}

void * ggml_metal_buffer_get_base(ggml_metal_buffer_t buf) {
    return buf->base;
}

bool ggml_metal_buffer_is_shared(ggml_metal_buffer_t) {
    return true;
}

void ggml_metal_buffer_memset_tensor(ggml_metal_buffer_t,
                                     ggml_tensor * tensor,
                                     uint8_t       value,
                                     size_t        offset,
                                     size_t        size) {
    memset((char *) tensor->data + offset, value, size);
}

void ggml_metal_buffer_set_tensor(ggml_metal_buffer_t,
                                  ggml_tensor * tensor,
                                  const void *  data,
                                  size_t        offset,
                                  size_t        size) {
    memcpy((char *) tensor->data + offset, data, size);
}

void ggml_metal_buffer_get_tensor(ggml_metal_buffer_t,
                                  const ggml_tensor * tensor,
                                  void *              data,
                                  size_t              offset,
                                  size_t              size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

bool ggml_metal_buffer_cpy_tensor(ggml_metal_buffer_t, const ggml_tensor *, ggml_tensor *) {
    return false;
}

void ggml_metal_buffer_clear(ggml_metal_buffer_t, uint8_t) {}

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buf, const ggml_tensor * t) {
    return { buf->base, (size_t) ((unsigned char *) t->data - buf->base) };
}

//
// context
//

struct ggml_metal {
    ggml_metal_device_t dev;
};

ggml_metal_t ggml_metal_init(ggml_metal_device_t dev) {
    return new ggml_metal{ dev };
}

void ggml_metal_free(ggml_metal_t ctx) {
    delete ctx;
}

const char * ggml_metal_get_name(ggml_metal_t ctx) {
    return ctx->dev->props.name;
}

void ggml_metal_synchronize(ggml_metal_t) {}

void ggml_metal_set_tensor_async(ggml_metal_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}

void ggml_metal_get_tensor_async(ggml_metal_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

bool ggml_metal_cpy_tensor_async(ggml_metal_t, ggml_metal_t, const ggml_tensor *, ggml_tensor *) {
    return false;
}

ggml_status ggml_metal_graph_compute(ggml_metal_t ctx, ggml_cgraph * gf) {
    ggml_metal_op_t op = ggml_metal_op_init(ctx->dev, nullptr, gf, ctx->dev->finfo, 0, gf->n_nodes, false, false, 0);

    int n = 1;
    for (int i = 0; i < ggml_metal_op_n_nodes(op) && n > 0; i += n) {
        n = ggml_metal_op_encode(op, i);
    }
    ggml_metal_op_free(op);
    return n > 0 ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

void ggml_metal_graph_optimize(ggml_metal_t, ggml_cgraph *) {}

void ggml_metal_event_record(ggml_metal_t, ggml_metal_event_t) {}

void ggml_metal_event_wait(ggml_metal_t, ggml_metal_event_t) {}

void ggml_metal_set_n_cb(ggml_metal_t, int) {}

void ggml_metal_set_abort_callback(ggml_metal_t, ggml_abort_callback, void *) {}

bool ggml_metal_supports_family(ggml_metal_t, int) {
    return false;
}

void ggml_metal_capture_next_compute(ggml_metal_t) {}
