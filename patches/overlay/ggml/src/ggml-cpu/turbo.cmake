# Codec, row decoders and attention kernels of the turbo series, for each variant of the CPU backend
list(APPEND GGML_CPU_SOURCES
    ggml-cpu/flash-attn.cpp
    ggml-cpu/flash-attn.h
    ggml-cpu/flash-attn-amx.h
    ggml-cpu/flash-attn-avx.h
    ggml-cpu/flash-attn-generic.h
    ggml-cpu/flash-attn-kernels.h
    ggml-cpu/flash-attn-levels.h
    ggml-cpu/flash-attn-neon.h
    ggml-cpu/flash-attn-plan.h
    ggml-cpu/flash-attn-vec.h
    ggml-cpu/flash-attn-vnni.h
    ggml-cpu/kv-block.h
    ggml-cpu/kv-levels.h
    ggml-cpu/kv-row.cpp
    ggml-cpu/kv-row.h
    ggml-cpu/kv-tile.cpp
    ggml-cpu/kv-tile.h
    ggml-cpu/row-chain.cpp
    ggml-cpu/row-chain.h
    ggml-cpu/turbo.c
    ggml-cpu/turbo.h
    )

if (NOT MSVC)
    # the turbo kernels reproduce the reference bit by bit, and chains the single operations
    set_source_files_properties(ggml-cpu/turbo.c ggml-cpu/kv-row.cpp ggml-cpu/kv-tile.cpp ggml-cpu/row-chain.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
endif()
