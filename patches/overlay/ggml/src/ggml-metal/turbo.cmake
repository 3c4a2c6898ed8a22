# Shader sources of the turbo types. Their headers follow dequantize.h in every library that has it.

set(METALLIB_KERNELS_TURBO
    "${CMAKE_CURRENT_SOURCE_DIR}/../ggml-turbo-tables.h"
    "${CMAKE_CURRENT_SOURCE_DIR}/kernels/turbo.h"
)

if (GGML_METAL_EMBED_LIBRARY)
    list(APPEND METALLIB_KERNELS_DEQUANTIZE ${METALLIB_KERNELS_TURBO}) # what is embedded, and watched
else()
    list(APPEND METALLIB_KERNELS_FA_SHARED ${METALLIB_KERNELS_TURBO}) # what is copied beside the binaries
    list(APPEND METALLIB_COMMON            ${METALLIB_KERNELS_TURBO}) # what is watched, for the tensor API, too
endif()

list(APPEND METALLIB_KERNEL_SOURCES
    kernels/fa_vec_turbo.metal
    kernels/turbo.metal
)

target_sources(ggml-metal PRIVATE ggml-metal-turbo.cpp)
