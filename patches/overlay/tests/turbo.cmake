# The series' own test programs.
llama_build_and_test(test-turbo.cpp)
llama_build(test-kv-device.cpp)
llama_build(test-turbo-backend.cpp)
