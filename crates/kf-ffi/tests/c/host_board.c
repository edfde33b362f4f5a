/* The board of examples/c/bare-metal on this machine: the line is standard input and output. */
#include "board.h"

#include <stdio.h>
#include <stdlib.h>

void line_open(void) {}

_Noreturn void board_exit(int status) { exit(status); }

void line_begin(size_t length) {
  putchar((int)(length & 0xff));
  putchar((int)(length >> 8));
  if (length == 0) fflush(stdout);
}

void line_write(const void *octets, size_t length) {
  if (length > 0) fwrite(octets, 1, length, stdout);
  fflush(stdout);
}

static uint8_t read_octet(void) {
  int octet = getchar();
  if (octet == EOF) exit(0); /* the plug was pulled */
  return (uint8_t)octet;
}

size_t line_receive(uint8_t *buffer, size_t capacity) {
  size_t length = read_octet(), i;
  length |= (size_t)read_octet() << 8;
  for (i = 0; i < length; i++) {
    uint8_t octet = read_octet();
    if (length <= capacity) buffer[i] = octet;
  }
  return length <= capacity ? length : LINE_TOO_LONG;
}
