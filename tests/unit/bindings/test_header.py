"""What is read of a C header, and what is left out instead of being read wrong."""

from __future__ import annotations

import pytest

from turbotool.bindings.header import Declarations, Signature, read_declarations

HEADER = r"""
#ifndef LLAMA_H
#define LLAMA_API __attribute__ \
    ((visibility ("default"))) struct gone { int x; };
/* struct old { int n; }; */
// struct older { int n; };
    struct llama_model;
    typedef int32_t llama_token;
    typedef struct llama_memory_i * llama_memory_t;
    typedef bool (*llama_callback)(float progress, void * user_data);
    enum ggml_type {
        GGML_TYPE_F32 = 0,  // no comma, in words: 7,
        GGML_TYPE_F16,
        GGML_TYPE_Q4_0 = 2,
        // GGML_TYPE_Q4_2 = 4, support has been removed
        GGML_TYPE_TURBO4 = 0x66,
        GGML_TYPE_ODD = 1 << 4,
        GGML_TYPE_AFTER,
    };
    struct llama_params {
        ggml_dev_t * devices;      // a list; NULL: all
        uint32_t n_ctx;
        enum llama_split split;
        float    base;             // 0 = from model
        llama_callback callback;
        const struct llama_override * overrides;
        const char * (*name)(const struct llama_model * model);
        struct llama_other  other;
        size_t size;
        bool   flag;
    };
    typedef struct llama_batch {
        llama_token * token;
        int8_t first;
    } llama_batch;
    struct llama_bits { int a : 3; };
    struct llama_array { char key[128]; };
    struct llama_unknown { some_t what; };
    struct llama_union { union { int a; float b; } value; };
    LLAMA_API struct llama_params llama_default_params(void);
    LLAMA_API const char * llama_name(
            const struct llama_model * model,
                          llama_token   token,
                                 bool);
    LLAMA_API void llama_decode(llama_batch batch, struct llama_params, llama_memory_t memory);
    DEPRECATED(LLAMA_API int64_t llama_old(struct llama_model * model),
        "use llama_new (instead), or not");
    LLAMA_API DEPRECATED(size_t llama_size(enum ggml_type type), "use another");
    LLAMA_API void llama_apply(void (*call)(int), int n);
    LLAMA_API some_t llama_some(void);
#endif
"""


@pytest.fixture(scope="module")
def read() -> Declarations:
    return read_declarations(["typedef void * ggml_dev_t;", HEADER])


def test_fields_come_in_order_with_what_they_hold(read: Declarations) -> None:
    assert list(read.structs["llama_params"].items()) == [
        ("devices", "pointer"),
        ("n_ctx", "int32"),
        ("split", "int32"),
        ("base", "float32"),
        ("callback", "pointer"),
        ("overrides", "pointer"),
        ("name", "pointer"),
        ("other", "struct llama_other"),
        ("size", "int64"),
        ("flag", "bool"),
    ]
    assert read.structs["llama_batch"] == {"token": "pointer", "first": "int8"}


@pytest.mark.parametrize("name", ["llama_bits", "llama_array", "llama_unknown", "llama_union", "gone", "old", "older"])
def test_a_struct_that_cannot_be_read_is_left_out(read: Declarations, name: str) -> None:
    assert name not in read.structs


def test_functions_have_what_they_take_and_return(read: Declarations) -> None:
    assert read.functions == {
        "llama_default_params": Signature("struct llama_params", ()),
        "llama_name": Signature("pointer", ("pointer", "int32", "bool")),
        "llama_decode": Signature("void", ("struct llama_batch", "struct llama_params", "pointer")),
        "llama_old": Signature("int64", ("pointer",)),
        "llama_size": Signature("int64", ("int32",)),
    }


def test_enumerators_have_the_values_that_are_written_or_follow(read: Declarations) -> None:
    assert read.values == {"GGML_TYPE_F32": 0, "GGML_TYPE_F16": 1, "GGML_TYPE_Q4_0": 2, "GGML_TYPE_TURBO4": 0x66}
