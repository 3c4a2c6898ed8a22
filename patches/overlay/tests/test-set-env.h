#pragma once

#include <cstdlib>
#include <string>

// For this process; an empty value does not unset the variable
static void test_set_env(const char * name, const std::string & value) {
#ifdef _WIN32
    _putenv_s(name, value.c_str());
#else
    setenv(name, value.c_str(), 1);
#endif
}
