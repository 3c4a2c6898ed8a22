# Shader sources of the turbo types. turbo.h follows dequantize.h in every library that has it.

set(METALLIB_KERNELS_TURBO "${CMAKE_CURRENT_SOURCE_DIR}/kernels/turbo.h")

list(APPEND METALLIB_KERNELS_DEQUANTIZE ${METALLIB_KERNELS_TURBO}) # what is embedded
list(APPEND METALLIB_KERNELS_FA_SHARED  ${METALLIB_KERNELS_TURBO}) # what is copied beside the binaries, and watched

list(APPEND METALLIB_KERNEL_SOURCES
    kernels/fa_vec_turbo.metal
    kernels/turbo.metal
)

target_sources(ggml-metal PRIVATE ggml-metal-turbo.cpp)
