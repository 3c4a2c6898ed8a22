// fa_block_elems() with the turbo types. It is wrapped, not edited: its lines differ between releases of upstream.
uint turbo_fa_block_elems(uint ty) {
    return ty >= GGML_TYPE_TURBO2 && ty <= GGML_TYPE_TURBO4 ? QK_TURBO : fa_block_elems(ty);
}
#define fa_block_elems turbo_fa_block_elems
