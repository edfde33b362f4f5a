/* What the tests in C say that must hold, and octets as hexadecimal text. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <string.h>

#include "keyfleet.h"

#define CHECK(condition) \
  do { if (!(condition)) { printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); return 1; } } while (0)
#define SAYS(call, status) \
  do { \
    kf_status said = call; \
    if (said != (status)) { printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, kf_status_text(said)); return 1; } \
  } while (0)

static inline int nibble(char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; }

static inline size_t unhex(const char *text, uint8_t *octets) {
  size_t length = strlen(text) / 2, i;
  for (i = 0; i < length; i++) octets[i] = (uint8_t)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
  return length;
}

static inline void print_hex(const char *name, const uint8_t *octets, size_t length) {
  printf("%s ", name);
  while (length-- > 0) printf("%02x", *octets++);
  printf("\n");
}

#endif
