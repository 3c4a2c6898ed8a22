// The SPIR-V modules of the turbo cache types: statements of process_shaders().

for (const std::string t : { "turbo2", "turbo3", "turbo4" }) {
    std::map<std::string, std::string> base = {
        { "DATA_A_" + to_uppercase(t), "1"     },
        { "D_TYPE",                    "float" },
        { "FLOAT_TYPE",                "float" },
        { "FLOAT_TYPEV2",              "vec2"  },
        { "TEMP_TYPE",                 "float" },
    };
    std::map<std::string, std::string> to_f16 = base;
    to_f16["D_TYPE"]                          = "float16_t";

    string_to_spv("cpy_" + t + "_f32", "turbo_copy.comp", base);
    string_to_spv("dequant_" + t, "turbo_dequant.comp", to_f16);

    std::map<std::string, std::string> rows = base, rows_f16 = to_f16;
    rows["B_TYPE"] = rows_f16["B_TYPE"] = "int";
    string_to_spv("get_rows_" + t, "get_rows_quant.comp", rows_f16);
    string_to_spv("get_rows_" + t + "_f32", "get_rows_quant.comp", rows);

    string_to_spv("cpy_f32_" + t, "turbo_quantize.comp",
                  merge_maps(base, {
                                       { "S_TYPE", "float" }
    }));

    for (const std::string f : { "f32", "f16" }) {
        const bool        f16  = f == "f16";
        const std::string c    = f16 ? "float16_t" : "float";
        const std::string name = "set_rows_" + f + "_" + t;
        const auto        i32 =
            merge_maps(base, {
                                 { "SET_ROWS", "1"    },
                                 { "S_TYPE",   c      },
                                 { "B_TYPE",   "uint" },
                                 { "B_SIZE",   "32"   }
        });
        auto i64      = i32;
        i64["B_TYPE"] = "uvec2";
        i64["B_SIZE"] = "64";
        string_to_spv(name + "_i32", "turbo_quantize.comp", i32);
        string_to_spv(name + "_i64", "turbo_quantize.comp", i64);

        const auto vec = merge_maps(
            base,
            {
                { "B_TYPE",   c                        },
                { "B_TYPEV2", f16 ? "f16vec2" : "vec2" },
                { "B_TYPEV4", f16 ? "f16vec4" : "vec4" }
        });
        const std::string product = "mul_mat_vec_" + t + "_" + f + "_f32";
        string_to_spv(product, "mul_mat_vec.comp", vec);
        string_to_spv(product + "_subgroup", "mul_mat_vec.comp",
                      merge_maps(vec, {
                                          { "USE_SUBGROUP_ADD", "1" }
        }));
        string_to_spv(product + "_subgroup_no_shmem", "mul_mat_vec.comp",
                      merge_maps(vec, {
                                          { "USE_SUBGROUP_ADD_NO_SHMEM", "1" }
        }));
    }
}
