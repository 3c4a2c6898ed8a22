# The calibration of K
target_sources(llama PRIVATE llama-kv-calib.cpp llama-kv-moments.cpp)
set_source_files_properties(llama-kv-calib.cpp llama-kv-moments.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
