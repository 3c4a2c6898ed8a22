# The calibration of a KV cache
set(KV_CALIBRATION_SOURCES llama-kv-calib-file.cpp llama-kv-calib.cpp llama-kv-moments.cpp)
target_sources(llama PRIVATE ${KV_CALIBRATION_SOURCES})
set_source_files_properties(${KV_CALIBRATION_SOURCES} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
