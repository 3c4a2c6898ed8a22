# The codec of the turbo cache types and the nodes that use it
target_sources(ggml-base PRIVATE ggml-turbo.c ggml-turbo-impl.h ggml-turbo-ops.c)

if (NOT MSVC)
    # kernels of other backends must reproduce this file's arithmetic bit by bit
    set_source_files_properties(ggml-turbo.c PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
endif()
