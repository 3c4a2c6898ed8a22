# Flash attention's vector kernel for pairs of cache types with a turbo type, included by CMakeLists.txt. Pairs are named in
# GGML_CUDA_FA_QUANTS like upstream's; those that upstream does not know are taken out of it here. Pairs without a kernel
# of their own are converted to f16.

set(TURBO_TYPES turbo2 turbo3 turbo4)
set(OTHER_TYPES q4_0 q4_1 q5_0 q5_1 q8_0 bf16 f16)

# What users run: one type for both, and a finer K, whose errors harm more than those of V.
set(TURBO_DEFAULT turbo4-turbo4 turbo3-turbo3 turbo2-turbo2 q8_0-turbo4 q8_0-turbo3 f16-turbo4)

set(TURBO_PAIRS "")
foreach (TYPE_K IN LISTS TURBO_TYPES OTHER_TYPES)
    foreach (TYPE_V IN LISTS TURBO_TYPES OTHER_TYPES)
        if ("${TYPE_K}-${TYPE_V}" MATCHES "turbo")
            list(APPEND TURBO_PAIRS ${TYPE_K}-${TYPE_V})
        endif()
    endforeach()
endforeach()

string(TOLOWER "${GGML_CUDA_FA_QUANTS}" FA_QUANTS)
string(REPLACE " " "" FA_QUANTS "${FA_QUANTS}")
string(REPLACE "," ";" FA_QUANTS "${FA_QUANTS}")

set(TURBO_SELECTED "")
if (FA_QUANTS STREQUAL "all" OR GGML_CUDA_FA_ALL_QUANTS)
    set(TURBO_SELECTED ${TURBO_PAIRS})
else()
    foreach (PAIR IN LISTS FA_QUANTS)
        if (PAIR IN_LIST TURBO_PAIRS)
            list(APPEND TURBO_SELECTED ${PAIR})
        endif()
    endforeach()
    if (TURBO_SELECTED)
        list(REMOVE_ITEM FA_QUANTS ${TURBO_SELECTED})
        list(REMOVE_DUPLICATES TURBO_SELECTED)
        # f16-f16 is what the others fall back to, upstream compiles it in any case.
        list(APPEND FA_QUANTS f16-f16)
        set(GGML_CUDA_FA_QUANTS "${FA_QUANTS}")
    else()
        set(TURBO_SELECTED ${TURBO_DEFAULT})
    endif()
endif()

set(TURBO_DEFINITIONS GGML_CUDA_FA_TURBO)
foreach (PAIR IN LISTS TURBO_PAIRS)
    string(REGEX MATCH "^(.*)-(.*)$" _ "${PAIR}")
    string(TOUPPER "${CMAKE_MATCH_1}" TURBO_K)
    string(TOUPPER "${CMAKE_MATCH_2}" TURBO_V)
    if (PAIR IN_LIST TURBO_SELECTED)
        set(SRC "${CMAKE_CURRENT_BINARY_DIR}/fattn-vec-instance-${PAIR}.cu")
        configure_file("${CMAKE_CURRENT_SOURCE_DIR}/template-instances/fattn-vec-instance-turbo.cu.in" "${SRC}" @ONLY)
        set_source_files_properties("${SRC}" PROPERTIES INCLUDE_DIRECTORIES "${CMAKE_CURRENT_SOURCE_DIR}")
        list(APPEND GGML_SOURCES_CUDA "${SRC}")
        list(APPEND TURBO_DEFINITIONS GGML_CUDA_FA_${TURBO_K}_${TURBO_V}=1)
    else()
        list(APPEND TURBO_DEFINITIONS GGML_CUDA_FA_${TURBO_K}_${TURBO_V}=0)
    endif()
endforeach()
set_property(SOURCE fattn.cu APPEND PROPERTY COMPILE_DEFINITIONS ${TURBO_DEFINITIONS})

message(STATUS "FlashAttention K-V type combinations with turbo types: ${TURBO_SELECTED}")
