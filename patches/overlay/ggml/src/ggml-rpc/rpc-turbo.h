#pragma once

// What a remote device can do with the turbo types. ggml-rpc.cpp includes this where its messages are declared.
//
// A stock server ends the connection at a command or a type that it does not know, and with it the client. So the question
// travels in a command that every server answers, GET_ALLOC_SIZE: the tensor is the operation, its name makes it a
// question, and the answers are sizes that no tensor has. The first question is on a tensor that every server knows: one
// that answers with its size has never heard of the turbo types, and no operation on them is sent to it.

#include "ggml-turbo.h"

static constexpr const char * RPC_TURBO_QUESTION = "ggml_turbo: is this supported?";
static constexpr uint64_t     RPC_TURBO_NO       = UINT64_MAX - 1;
static constexpr uint64_t     RPC_TURBO_YES      = UINT64_MAX;

//
// server
//

static bool rpc_turbo_is_question(const rpc_msg_get_alloc_size_req & request) {
    return strncmp(request.tensor.name, RPC_TURBO_QUESTION, sizeof(request.tensor.name)) == 0;
}

// deserialize(ctx, tensor) is null for what this server does not take
template <typename F>
static uint64_t rpc_turbo_answer(ggml_backend_t                     backend,
                                 const rpc_msg_get_alloc_size_req & request,
                                 const F &                          deserialize) {
    ggml_context_ptr ctx{ ggml_init({ (1 + GGML_MAX_SRC) * ggml_tensor_overhead(), nullptr, true }) };

    ggml_tensor * op = deserialize(ctx.get(), &request.tensor);
    for (int i = 0; op && i < GGML_MAX_SRC; i++) {
        if (request.srcs[i].id != 0) {
            op->src[i] = deserialize(ctx.get(), &request.srcs[i]);
            op         = op->src[i] ? op : nullptr;
        }
    }
    return op && ggml_backend_supports_op(backend, op) ? RPC_TURBO_YES : RPC_TURBO_NO;
}

//
// client
//

// what the answer depends on: nothing that differs between layers or graphs
static rpc_tensor rpc_turbo_serialize(const ggml_tensor * tensor) {
    rpc_tensor res = serialize_tensor(tensor);
    res.id         = tensor != nullptr;
    res.buffer     = 0;
    res.data       = 0;
    res.flags      = 0;
    res.view_src   = 0;
    res.view_offs  = 0;
    memset(res.src, 0, sizeof(res.src));
    memset(res.name, 0, sizeof(res.name));
    return res;
}

static uint64_t rpc_turbo_ask(ggml_backend_dev_t device, const ggml_tensor * op) {
    const auto * dev     = (const ggml_backend_rpc_device_context *) device->context;
    auto         request = std::make_shared<rpc_msg_get_alloc_size_req>();

    request->device = dev->device;
    request->tensor = rpc_turbo_serialize(op);
    snprintf(request->tensor.name, sizeof(request->tensor.name), "%s", RPC_TURBO_QUESTION);

    uint64_t key = fnv_hash((const uint8_t *) dev->endpoint.data(), dev->endpoint.size());
    key          = fnv_hash((const uint8_t *) &request->device, sizeof(request->device) + sizeof(request->tensor), key);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        request->srcs[i] = rpc_turbo_serialize(op->src[i]);
        if (op->src[i]) {
            key = fnv_hash((const uint8_t *) &i, sizeof(i), key);
            key = fnv_hash((const uint8_t *) &request->srcs[i], sizeof(request->srcs[i]), key);
        }
    }

    static std::mutex                             mutex;
    static std::unordered_map<uint64_t, uint64_t> answers;

    std::lock_guard<std::mutex> lock(mutex);
    const auto                  it = answers.find(key);
    if (it != answers.end()) {
        return it->second;
    }

    rpc_msg_get_alloc_size_rsp response;
    get_dispatcher(dev->endpoint)->send(RPC_CMD_GET_ALLOC_SIZE, request, sizeof(*request), &response, sizeof(response));
    return answers[key] = response.alloc_size;
}

// whether the server of the device knows the turbo types
static bool rpc_turbo_known(ggml_backend_dev_t device) {
    ggml_tensor plain = {};
    plain.type        = GGML_TYPE_F32;
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        plain.ne[i] = 1;
        plain.nb[i] = sizeof(float);
    }
    return rpc_turbo_ask(device, &plain) == RPC_TURBO_YES;
}

static bool rpc_turbo_supports_op(ggml_backend_dev_t device, const ggml_tensor * op) {
    return !ggml_turbo_involved(op) || (rpc_turbo_known(device) && rpc_turbo_ask(device, op) == RPC_TURBO_YES);
}

// A graph for the device may hold views of a cache in other memory between its operations. They are not computed and their
// type does not matter where their data is not, but a stock server refuses a graph with a type that it does not know.
static void rpc_turbo_hide(std::vector<rpc_tensor> & tensors) {
    for (rpc_tensor & tensor : tensors) {
        if (tensor.buffer == 0 && ggml_is_turbo((ggml_type) tensor.type)) {
            tensor.type = GGML_TYPE_F32;
        }
    }
}

// The client asked about another shape: refusing the graph is better than an abort in the backend
static bool rpc_turbo_refuses(ggml_backend_t backend, const ggml_tensor * node) {
    if (node == nullptr || !ggml_turbo_involved(node) || ggml_backend_supports_op(backend, node)) {
        return false;
    }
    GGML_LOG_ERROR("[%s] %s of a turbo type is not supported\n", __func__, ggml_op_desc(node));
    return true;
}
