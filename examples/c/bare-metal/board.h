/* The emulated board: Arm MPS2 with the AN386 image, a Cortex-M4 with FPU, as QEMU has it. A serial port to the host, frames
 * on it, and a way to stop the emulator. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

#define LINE_FRAME_OCTETS (20u * 1024u)
#define LINE_TOO_LONG SIZE_MAX

/* Frames: two octets of length, little endian, then that many octets. */
void line_open(void);
void line_begin(size_t length);
void line_write(const void *octets, size_t length);
/* The length of the next frame; LINE_TOO_LONG when it did not fit, and it is thrown away. */
size_t line_receive(uint8_t *buffer, size_t capacity);

/* Stops the emulator with this exit status. */
_Noreturn void board_exit(int status);

/* A frame taken apart: fields behind two octets of length, little endian. */
typedef struct fields {
  const uint8_t *rest;
  size_t length;
} fields;
/* The next field; NULL when the frame is cut short. */
const uint8_t *field_next(fields *frame, size_t *length);
/* The next field when it has exactly `length` octets, else NULL. */
const uint8_t *field_of(fields *frame, size_t length);
uint32_t number_at(const uint8_t *octets);           /* big endian */
void number_to(uint8_t *octets, uint32_t number);    /* big endian */

#endif
