# The series' own test programs.
llama_build_and_test(test-turbo.cpp)
llama_build_and_test(test-log-exit.cpp)
llama_build(test-kv-device.cpp)
llama_build(test-turbo-backend.cpp)
llama_build(test-attention-speed.cpp)
llama_build(test-kv-state.cpp)
llama_build(bench-kv-pairs.cpp)

if (NOT GGML_BACKEND_DL)
    # uses the CPU backend directly
    llama_build_and_test(test-kv-plan.cpp)
endif()

if (NOT WIN32 OR NOT BUILD_SHARED_LIBS)
    # looks into the library
    llama_build(test-kv-calibration.cpp)
endif()
