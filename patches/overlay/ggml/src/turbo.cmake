# The codec of the turbo cache types
target_sources(ggml-base PRIVATE ggml-turbo.c ggml-turbo-impl.h)

if (NOT MSVC)
    # kernels of other backends must reproduce this file's arithmetic bit by bit
    set_source_files_properties(ggml-turbo.c PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
endif()
