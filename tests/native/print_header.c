/* Prints the bytes of one header: print_header SOURCE SEQ T_NS DTYPE N CHANNELS */
#include <stdio.h>
#include <stdlib.h>

#include "robult_frame.h"

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    uint8_t *out = malloc(strlen(argv[1]) + 64);
    if (out == NULL) return 1;
    size_t length = robult_header(out, argv[1], strtoull(argv[2], NULL, 10),
                                  strtoull(argv[3], NULL, 10), argv[4],
                                  (uint32_t)strtoul(argv[5], NULL, 10),
                                  (uint32_t)strtoul(argv[6], NULL, 10));
    size_t written = fwrite(out, 1, length, stdout);
    free(out);
    return written == length ? 0 : 1;
}
