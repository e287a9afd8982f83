/* The header of a robult-edge frame (docs/PROTOCOL.md), in plain C and nothing else. */
#ifndef ROBULT_FRAME_H
#define ROBULT_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint8_t *robult_uint(uint8_t *p, uint8_t tag, uint64_t value, int bytes) {
    *p++ = tag;
    while (bytes-- > 0) *p++ = (uint8_t)(value >> (8 * bytes)); /* msgpack is big-endian */
    return p;
}

static inline uint8_t *robult_text(uint8_t *p, const char *text) {
    size_t length = strlen(text);
    p = robult_uint(p, 0xda, length, 2);
    memcpy(p, text, length);
    return p + length;
}

/* Writes msgpack [1, source, seq, t_ns, dtype, [n, channels]] to out, which holds
 * strlen(source) + 64 bytes or more, and returns its length. */
static inline size_t robult_header(uint8_t *out, const char *source, uint64_t seq, uint64_t t_ns,
                                   const char *dtype, uint32_t n, uint32_t channels) {
    uint8_t *p = out;
    *p++ = 0x96; /* array of 6 */
    *p++ = 1;    /* version */
    p = robult_text(p, source);
    p = robult_uint(p, 0xcf, seq, 8);
    p = robult_uint(p, 0xcf, t_ns, 8);
    p = robult_text(p, dtype);
    *p++ = 0x92; /* array of 2 */
    p = robult_uint(p, 0xce, n, 4);
    p = robult_uint(p, 0xce, channels, 4);
    return (size_t)(p - out);
}

#endif
