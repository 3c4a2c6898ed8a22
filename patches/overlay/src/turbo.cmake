# What the turbo series adds to the library, beside upstream's files
target_sources(llama PRIVATE llama-kv-device.cpp llama-kv-state.cpp llama-turbo.cpp)
set_source_files_properties(llama-kv-device.cpp llama-kv-state.cpp llama-turbo.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
