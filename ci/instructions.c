// A plugin for qemu's user emulation: the instructions that a program runs, by function, as lines "COUNT NAME" in the file that
// the argument out= names.
//
// gcc -shared -fPIC -O2 -o instructions.so ci/instructions.c
// qemu-aarch64 -L /usr/aarch64-linux-gnu -plugin ./instructions.so,out=FILE PROGRAM

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// what is used of version 1 of qemu's interface, for which distributions ship no header
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_exit_of_program)(qemu_plugin_id_t, void *);
extern void   qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
extern void   qemu_plugin_register_atexit_cb(qemu_plugin_id_t, on_exit_of_program, void *);
extern void   qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn * qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const char *              qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

enum { ADD_U64 = 0 };

struct counter {
    struct counter * next;
    uint64_t         n;
    char             name[];
};

static struct counter * counters;
static const char *     out;

static uint64_t * count_of(const char * name) {
    for (struct counter * c = counters; c; c = c->next) {
        if (strcmp(c->name, name) == 0) {
            return &c->n;
        }
    }
    struct counter * c = calloc(1, sizeof(*c) + strlen(name) + 1);
    if (!c) {
        abort();
    }
    strcpy(c->name, name);
    c->next  = counters;
    counters = c;
    return &c->n;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb * block) {
    (void) id;
    const char * name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, count_of(name && *name ? name : "?"),
                                             qemu_plugin_tb_n_insns(block));
}

static void report(qemu_plugin_id_t id, void * data) {
    (void) id;
    (void) data;
    FILE * file = fopen(out, "w");
    if (!file) {
        perror(out);
        return;
    }
    for (struct counter * c = counters; c; c = c->next) {
        fprintf(file, "%" PRIu64 " %s\n", c->n, c->name);
    }
    fclose(file);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void * info, int argc, char ** argv) {
    (void) info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = strdup(argv[i] + 4);
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return out ? 0 : 1;
}
