/* A sensor in C: an accelerometer (g, 50 Hz) that turns once a second, 5 samples to a frame.
 *
 *   cc -o sensor sensor.c -lzmq -lm
 *   ./sensor [ADDRESS [SOURCE [COUNT]]]       COUNT frames, or without end
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zmq.h>

#include "robult_frame.h"

enum { CHANNELS = 3, PER_FRAME = 5, PERIOD_NS = 20000000, MAX_SOURCE = 512 };

static const double TURN = 6.283185307179586;

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t due_ns) {
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (due_ns > now) {
        uint64_t left = due_ns - now;
        struct timespec t = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        nanosleep(&t, NULL);
    }
}

static void read_sample(uint64_t index, float *sample) {
    double angle = TURN * (double)index * PERIOD_NS / 1e9;
    sample[0] = (float)sin(angle);
    sample[1] = (float)cos(angle);
    sample[2] = 1.0f;
}

static int fail(const char *what) {
    fprintf(stderr, "sensor: %s: %s\n", what, zmq_strerror(zmq_errno()));
    return EXIT_FAILURE;
}

int main(int argc, char **argv) {
    const char *address = argc > 1 ? argv[1] : "tcp://127.0.0.1:5555";
    const char *source = argc > 2 ? argv[2] : "rig";
    uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : UINT64_MAX;
    if (strlen(source) > MAX_SOURCE) {
        fprintf(stderr, "sensor: SOURCE is longer than %d bytes\n", MAX_SOURCE);
        return EXIT_FAILURE;
    }

    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_PUB);
    int linger_ms = 100;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    if (zmq_connect(socket, address) != 0) return fail(address);

    uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
    for (uint64_t seq = 0; seq < count; seq++) {
        float samples[PER_FRAME][CHANNELS]; /* "<f4" is this machine's own float: little-endian */
        uint64_t t_ns = 0;                  /* when the first of them was captured */
        for (int i = 0; i < PER_FRAME; i++) {
            uint64_t index = seq * PER_FRAME + (uint64_t)i;
            sleep_until(start_ns + index * PERIOD_NS);
            if (i == 0) t_ns = now_ns(CLOCK_REALTIME);
            read_sample(index, samples[i]);
        }
        uint8_t header[MAX_SOURCE + 64];
        size_t length = robult_header(header, source, seq, t_ns, "<f4", PER_FRAME, CHANNELS);
        if (zmq_send(socket, "acc", 4, ZMQ_SNDMORE) < 0 || /* the topic, its NUL included */
            zmq_send(socket, header, length, ZMQ_SNDMORE) < 0 ||
            zmq_send(socket, samples, sizeof samples, 0) < 0) {
            return fail("send");
        }
    }
    zmq_close(socket);
    zmq_ctx_term(context);
    return EXIT_SUCCESS;
}
