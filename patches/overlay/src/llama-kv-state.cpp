#include "llama-kv-state.h"

#include "ggml-turbo.h"
#include "llama-impl.h"
#include "llama-kv-cache-dsa-iswa.h"
#include "llama-kv-cache-dsa.h"
#include "llama-kv-cache-msa.h"
#include "llama-memory.h"
#include "llama-mmap.h"

#include <cctype>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

//
// rotation
//

uint32_t llama_kv_state_turbo(ggml_type type, const llama_turbo_rot & rot) {
    const uint32_t turbo =
        ggml_is_turbo(type) ? (uint32_t) (rot.width() / 64) << 16 | (uint32_t) GGML_TURBO_ROT_REVISION << 24 : 0;

    return turbo | (rot.mul ? LLAMA_KV_STATE_CALIBRATED : 0);
}

void llama_kv_state_write_calibration(llama_io_write_i & io, uint32_t n_rot_k, uint64_t hash) {
    if (n_rot_k & LLAMA_KV_STATE_CALIBRATED) {
        io.write(&hash, sizeof(hash));
    }
}

bool llama_kv_state_read_calibration(llama_io_read_i & io, uint32_t n_rot_k_ref, uint64_t hash) {
    uint64_t hash_ref = 0;
    if (n_rot_k_ref & LLAMA_KV_STATE_CALIBRATED) {
        io.read(&hash_ref, sizeof(hash_ref));
    }
    if (hash_ref == hash) {
        return true;
    }

    const auto str = [](uint64_t value) {
        return value ? format("calibrated (%016llx)", (unsigned long long) value) : std::string("uncalibrated");
    };
    LLAMA_LOG_ERROR(
        "%s: the state was saved with K %s, this context stores K %s: %s\n", __func__, str(hash_ref).c_str(),
        str(hash).c_str(),
        hash_ref ? "--kv-calibration with the file of then, and the same context size" : "--kv-calibration off");
    return false;
}

static std::string type_str(int32_t type) {
    const char * name = type >= 0 && type < GGML_TYPE_COUNT ? ggml_type_name((ggml_type) type) : nullptr;

    return name ? name : format("of unknown type %d", type);
}

static std::string rot_str(uint32_t rot) {
    const uint32_t n_rot = rot & LLAMA_KV_STATE_ROT_UPSTREAM;

    std::string res = n_rot ? format("rotated by %u (upstream's rotation)", n_rot) : "";
    if (rot & LLAMA_KV_STATE_ROT_TURBO) {
        res += format("%swith the turbo rotation (%u, revision %u)", n_rot ? " and " : "", (rot >> 16 & 0xff) * 64,
                      rot >> 24 & 0x7f);
    }

    return res.empty() ? "unrotated" : res;
}

// what makes a context read a state, or why nothing does
static std::string advice_str(char side, int32_t type_ref, int32_t type, uint32_t rot_ref, uint32_t rot) {
    const uint32_t    n_rot = rot_ref & LLAMA_KV_STATE_ROT_UPSTREAM;
    const std::string env   = std::string("LLAMA_ATTN_ROT_") + (char) std::toupper(side);

    const bool same_turbo = ((rot_ref ^ rot) & LLAMA_KV_STATE_ROT_TURBO) == 0;
    const bool known_rot  = n_rot == 0 || (n_rot >= 64 && (n_rot & (n_rot - 1)) == 0);
    const bool known_type = type_ref >= 0 && type_ref < GGML_TYPE_COUNT && ggml_blck_size((ggml_type) type_ref) > 0;
    if ((type_ref == type && !same_turbo) || !known_rot || !known_type) {
        return "no setting of this program reads it";
    }

    std::string res;
    if (type_ref != type) {
        res = format("-ct%c %s", side, ggml_type_name((ggml_type) type_ref));
    }
    if (n_rot != (rot & LLAMA_KV_STATE_ROT_UPSTREAM)) {
        const char * disable = std::getenv("LLAMA_ATTN_ROT_DISABLE");
        res += res.empty() ? "" : ", ";
        res += n_rot && disable && *disable ? "unset LLAMA_ATTN_ROT_DISABLE, " : "";
        res += n_rot ? format("set %s_OVERRIDE=1 %s_NROT=%u", env.c_str(), env.c_str(), n_rot) :
                       "unset " + env + "_OVERRIDE";
    }

    return res;
}

bool llama_kv_state_check(char side, int32_t type_ref, const ggml_tensor * rows, uint32_t rot_ref, uint32_t rot) {
    const int32_t type = rows ? rows->type : type_ref;
    if (type_ref == type && rot_ref == rot) {
        return true;
    }

    const char name = (char) std::toupper(side);
    LLAMA_LOG_ERROR("%s: the state was saved with %c %s %s, this context stores %c %s %s: %s\n", __func__, name,
                    type_str(type_ref).c_str(), rot_str(rot_ref).c_str(), name, type_str(type).c_str(),
                    rot_str(rot).c_str(), advice_str(side, type_ref, type, rot_ref, rot).c_str());
    return false;
}

bool llama_kv_state_cell(llama_pos pos, uint32_t n_seq_id) {
    if (pos >= 0 && pos < std::numeric_limits<llama_pos>::max() && n_seq_id > 0) {
        return true;
    }

    LLAMA_LOG_ERROR("%s: invalid cell (position %d, %u sequences)\n", __func__, pos, n_seq_id);
    return false;
}

void llama_kv_state_below(const llama_memory_i & mem, uint32_t n_seq_max, int64_t n_pos) {
    for (uint32_t s = 0; s < n_seq_max; ++s) {
        if (mem.seq_pos_max((llama_seq_id) s) >= n_pos) {
            throw std::runtime_error(format("a position of sequence %u is out of range", s));
        }
    }
}

//
// restore
//

llama_state_restore::~llama_state_restore() {
    if (!mem) {
        return;
    }

    if (seq_id == -1) {
        mem->clear(true);
    } else {
        mem->seq_rm(seq_id, -1, -1);
    }
}

// whether an indexer's cache, if there is one, mirrors the other after a restore
static bool mirrors(const llama_memory_i * mem, llama_seq_id seq_id) {
    if (const auto * dsa_iswa = dynamic_cast<const llama_kv_cache_dsa_iswa *>(mem)) {
        mem = dsa_iswa->get_dsa();
    }
    if (const auto * dsa = dynamic_cast<const llama_kv_cache_dsa *>(mem)) {
        return dsa->get_mla()->seq_pos_max(seq_id) == dsa->get_lid()->seq_pos_max(seq_id);
    }
    if (const auto * msa = dynamic_cast<const llama_kv_cache_msa *>(mem)) {
        return msa->get_base()->seq_pos_max(seq_id) == msa->get_idx()->seq_pos_max(seq_id);
    }
    return true;
}

void llama_state_restore::require(size_t n_read, size_t size, bool appendix) const {
    // llama_set_state_data() does not know the size
    const size_t n_left = size == std::numeric_limits<size_t>::max() ? 0 : size - n_read;
    if (n_left > 0 && !appendix) {
        throw std::runtime_error(format("%zu of %zu bytes are left over", n_left, size));
    }
    if (mem && seq_id != -1 && !mirrors(mem, seq_id)) {
        throw std::runtime_error("the caches of the state hold different parts of the sequence");
    }
    if (n_left > 0 && mem && mem->seq_pos_max(seq_id) < 0) {
        throw std::runtime_error(format("the state holds no cells, but %zu bytes follow", n_left));
    }
}

size_t llama_state_restore::done(size_t n_read, size_t size) {
    require(n_read, size, false);
    mem = nullptr;

    return n_read;
}

void llama_state_restore::done(llama_io_read_late & io, size_t size, bool appendix) {
    require(io.n_bytes(), size, appendix);
    io.flush();
    mem = nullptr;
}

llama_io_read_late::llama_io_read_late(llama_io_read_i & io, llama_file & file) :
    io(io),
    file(file),
    start(file.tell()) {}

void llama_io_read_late::require(size_t size) const {
    if (size > file.size() - file.tell()) {
        LLAMA_LOG_ERROR("%s: the file ends after %zu bytes, within the state\n", "llama_io_read_late", file.size());
        throw std::runtime_error("unexpectedly reached end of file");
    }
}

void llama_io_read_late::read(void * dst, size_t size) {
    require(size);
    io.read(dst, size);
}

void llama_io_read_late::read_tensor(ggml_tensor * tensor, size_t offset, size_t size) {
    require(size);
    rinfos.push_back({ tensor, offset, size, file.tell() });
    file.seek(file.tell() + size, SEEK_SET);
}

size_t llama_io_read_late::n_bytes() {
    return file.tell() - start;
}

void llama_io_read_late::flush() {
    const size_t end = file.tell();
    for (const auto & rinfo : rinfos) {
        file.seek(rinfo.pos, SEEK_SET);
        io.read_tensor(rinfo.tensor, rinfo.offset, rinfo.size);
    }
    file.seek(end, SEEK_SET);
}
