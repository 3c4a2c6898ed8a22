// For LD_PRELOAD with a Vulkan program on Mesa's lavapipe, 26.1 or later:
//
//     cc -O2 -shared -fPIC -o lavapipe.so tests/native/vulkan/lavapipe.c -ldl
//
// lavapipe multiplies cooperative matrices whose sizes are multiples of 8 (flexible dimensions of
// VK_NV_cooperative_matrix2), but lists only 8x8x8 for VK_KHR_cooperative_matrix, and takes dot products of packed bytes,
// but does not call them accelerated. llama.cpp then uses neither. Here 16x16x16 is listed too and the dot product called
// accelerated, and each shader module with one of both is printed, so that it is seen which path ran. Where llama.cpp
// polls a fence, the thread sleeps: lavapipe needs its core.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#define ADDED 2

static PFN_vkGetFenceStatus                                  get_fence_status;
static PFN_vkCreateShaderModule                              create_shader_module;
static PFN_vkGetPhysicalDeviceProperties2                    get_properties;
static PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get_matrices;

static VkResult fence_status(VkDevice device, VkFence fence) {
    const VkResult result = get_fence_status(device, fence);
    if (result == VK_NOT_READY) {
        usleep(1000);
    }
    return result;
}

// OpCapability, which has two words, stands before every other instruction; the header has five words.
static VkResult shader_module(VkDevice device, const VkShaderModuleCreateInfo * info, const VkAllocationCallbacks * allocator,
                              VkShaderModule * module) {
    const uint32_t * code = info->pCode;
    for (size_t i = 5; i + 1 < info->codeSize / 4 && code[i] == (2 << 16 | 17); i += 2) {
        const char * what = code[i + 1] == 6022 ? "cooperative matrices" : code[i + 1] == 6018 ? "dot products of bytes" : NULL;
        if (what) {
            fprintf(stderr, "lavapipe.c: a shader of %zu bytes has %s\n", info->codeSize, what);
        }
    }
    return create_shader_module(device, info, allocator, module);
}

static void properties(VkPhysicalDevice device, VkPhysicalDeviceProperties2 * all) {
    get_properties(device, all);
    for (VkBaseOutStructure * one = all->pNext; one; one = one->pNext) {
        if (one->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES) {
            VkPhysicalDeviceShaderIntegerDotProductProperties * dot = (void *) one;
            dot->integerDotProduct4x8BitPackedSignedAccelerated = VK_TRUE;
        }
    }
}

// The caller asks for the count first, as llama.cpp does.
static VkResult matrices(VkPhysicalDevice device, uint32_t * count, VkCooperativeMatrixPropertiesKHR * list) {
    uint32_t       listed = list ? *count - ADDED : 0;
    const VkResult result = get_matrices(device, &listed, list);
    for (int i = 0; list && i < ADDED; i++) {
        VkCooperativeMatrixPropertiesKHR * added = &list[listed + i];
        added->sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
        added->MSize = added->NSize = added->KSize = 16;
        added->AType = added->BType = VK_COMPONENT_TYPE_FLOAT16_KHR;
        added->CType = added->ResultType = i ? VK_COMPONENT_TYPE_FLOAT16_KHR : VK_COMPONENT_TYPE_FLOAT32_KHR;
        added->saturatingAccumulation = VK_FALSE;
        added->scope = VK_SCOPE_SUBGROUP_KHR;
    }
    *count = listed + ADDED;
    return result;
}

#define INSTEAD(vulkan, real, ours)           \
    if (found && strcmp(name, vulkan) == 0) { \
        real = (void *) found;                \
        return (PFN_vkVoidFunction) ours;     \
    }

static PFN_vkVoidFunction instead(PFN_vkVoidFunction found, const char * name) {
    INSTEAD("vkGetFenceStatus", get_fence_status, fence_status)
    INSTEAD("vkCreateShaderModule", create_shader_module, shader_module)
    INSTEAD("vkGetPhysicalDeviceProperties2", get_properties, properties)
    INSTEAD("vkGetPhysicalDeviceProperties2KHR", get_properties, properties)
    INSTEAD("vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR", get_matrices, matrices)
    return found;
}

PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char * name) {
    PFN_vkGetInstanceProcAddr next = (PFN_vkGetInstanceProcAddr) dlsym(RTLD_NEXT, "vkGetInstanceProcAddr");
    return instead(next(instance, name), name);
}

PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char * name) {
    PFN_vkGetDeviceProcAddr next = (PFN_vkGetDeviceProcAddr) dlsym(RTLD_NEXT, "vkGetDeviceProcAddr");
    return instead(next(device, name), name);
}
