/* What is in a frame. Nothing here knows the board. */
#include "board.h"

const uint8_t *field_next(fields *frame, size_t *length) {
  const uint8_t *field = frame->rest + 2;
  if (frame->length < 2) return NULL;
  *length = (size_t)frame->rest[0] | (size_t)frame->rest[1] << 8;
  if (frame->length - 2 < *length) return NULL;
  frame->rest = field + *length;
  frame->length -= 2 + *length;
  return field;
}

const uint8_t *field_of(fields *frame, size_t length) {
  size_t found = 0;
  const uint8_t *field = field_next(frame, &found);
  return field != NULL && found == length ? field : NULL;
}

uint32_t number_at(const uint8_t *octets) {
  return (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 | octets[3];
}

void number_to(uint8_t *octets, uint32_t number) {
  octets[0] = (uint8_t)(number >> 24);
  octets[1] = (uint8_t)(number >> 16);
  octets[2] = (uint8_t)(number >> 8);
  octets[3] = (uint8_t)number;
}
