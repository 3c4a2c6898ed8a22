// What the log prints when a program ends, and that it ends: by returning from main, and by exit() in a signal handler,
// which may have interrupted any thread anywhere, as the second Ctrl-C of the server does.
//
// test-log-exit [RUNS]

#include "log.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#ifdef _WIN32
int main() {
    printf("nothing is printed at exit on Windows\n");
    return 0;
}
#else
#    include <poll.h>
#    include <signal.h>
#    include <sys/wait.h>
#    include <time.h>
#    include <unistd.h>

#    include <algorithm>
#    include <thread>

static const int n_lines    = 300;
static const int timeout_ms = 10000;

// programs

static int say_and_return() {
    for (int i = 0; i < n_lines; i++) {
        LOG_ERR("line %d\n", i);
    }
    return 3;
}

static void leave(int) {
    exit(4);
}

// never returns by itself; its threads log without end
static int say_until_signal() {
    signal(SIGINT, leave);
    std::thread([] {
        while (true) {
            LOG_ERR("worker\n");
        }
    }).detach();
    while (true) {
        LOG_ERR("main\n");
    }
}

// parent

static long now_ms() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct run {
    int         status = -1;  // of exit; -1: killed because it did not end
    std::string output;
    long        ms = 0;       // from the signal, or the start, to the end of the output
};

// a new process, so that no run inherits the log of another
static run run_program(const char * self, const char * mode, int signal_after_us) {
    int ends[2];
    if (pipe(ends) != 0) {
        perror("pipe");
        exit(2);
    }
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(self, self, mode, (char *) nullptr);
        _exit(127);
    }
    close(ends[1]);

    run  res;
    long start = now_ms();
    char buf[65536];
    while (now_ms() - start < timeout_ms) {
        pollfd p = { ends[0], POLLIN, 0 };
        if (poll(&p, 1, 100) <= 0) {
            continue;
        }
        const ssize_t n = read(ends[0], buf, sizeof(buf));
        if (n <= 0) {
            break;
        }
        res.output.append(buf, n);
        if (signal_after_us >= 0) {
            // it logs, so its handler is there
            usleep(signal_after_us);
            kill(child, SIGINT);
            signal_after_us = -1;
            start           = now_ms();
        }
    }
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    res.ms     = now_ms() - start;
    res.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    close(ends[0]);
    return res;
}

int main(int argc, char ** argv) {
    if (argc == 2 && std::string(argv[1]) == "return") {
        return say_and_return();
    }
    if (argc == 2 && std::string(argv[1]) == "signal") {
        return say_until_signal();
    }
    const int n_runs = argc == 2 ? atoi(argv[1]) : 25;

    const std::string last = "line " + std::to_string(n_lines - 1) + "\n";

    int  n_lost = 0;
    int  n_hung = 0;
    long worst  = 0;
    for (int i = 0; i < n_runs; i++) {
        const run r = run_program(argv[0], "return", -1);
        n_lost += r.status != 3 || r.output.find(last) == std::string::npos;
    }
    for (int i = 0; i < n_runs; i++) {
        const run r = run_program(argv[0], "signal", 137 * i);
        n_hung += r.status != 4;
        worst = std::max(worst, r.ms);
    }
    printf("%s: %d of %d runs that return lose lines\n", n_lost ? "FAILED" : "ok", n_lost, n_runs);
    printf("%s: %d of %d runs that a signal ends do not end, the slowest of the others takes %ld ms\n",
           n_hung ? "FAILED" : "ok", n_hung, n_runs, worst);
    return n_lost + n_hung > 0;
}
#endif
