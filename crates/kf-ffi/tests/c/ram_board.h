/* A board for the tests in C: flash memory in RAM that can lose its power in the middle of any operation, noise by a seed, a chip's key. */
#ifndef RAM_BOARD_H
#define RAM_BOARD_H

#include "check.h"

/* Operations of either memory (words programmed, sectors erased) until the power goes in the middle of the next; none is planned when
 * this is negative. */
static long left_until_cut = -1;
static long operations;
static int has_power = 1;

static inline void cut_after(long count) { left_until_cut = count; }

static inline void power_on(void) {
  has_power = 1;
  left_until_cut = -1;
}

/* Counts an operation; 0 when the power went away just now. */
static inline int goes_on(void) {
  if (left_until_cut == 0) return has_power = 0;
  if (left_until_cut > 0) left_until_cut--;
  operations++;
  return 1;
}

/* A memory of words that are programmed once between two erasures. */
typedef struct memory {
  uint8_t *cells;
  uint32_t word, sector, sectors;
} memory;

static inline int32_t memory_read(void *context, uint32_t offset, uint8_t *octets, size_t length) {
  const memory *of = context;
  if (!has_power || offset > of->sector * of->sectors || length > of->sector * of->sectors - offset) return -1;
  memcpy(octets, of->cells + offset, length);
  return 0;
}

static inline int32_t memory_program(void *context, uint32_t offset, const uint8_t *octets, size_t length) {
  const memory *of = context;
  uint32_t i;
  if (!has_power || offset % of->word != 0 || length % of->word != 0 || offset + length > of->sector * of->sectors) return -1;
  for (; length > 0; offset += of->word, octets += of->word, length -= of->word) {
    int is_whole;
    for (i = 0; i < of->word; i++) {
      if (of->cells[offset + i] != 0xff) return -1; /* programmed twice */
    }
    is_whole = goes_on();
    /* Of a torn word some bits are not programmed. */
    for (i = 0; i < of->word; i++) of->cells[offset + i] &= (uint8_t)(octets[i] | (is_whole ? 0 : 0x5a));
    if (!is_whole) return -1;
  }
  return 0;
}

static inline int32_t memory_erase(void *context, uint32_t sector) {
  const memory *of = context;
  uint32_t i;
  int is_whole;
  if (!has_power || sector >= of->sectors) return -1;
  is_whole = goes_on();
  /* Of a torn sector every other octet is not erased. */
  for (i = 0; i < of->sector; i += is_whole ? 1 : 2) of->cells[sector * of->sector + i] = 0xff;
  return is_whole ? 0 : -1;
}

/* The memory of the store. */
#define BOARD_SECTOR 1024u
#define BOARD_SECTORS 8u
static uint8_t board_cells[BOARD_SECTOR * BOARD_SECTORS];
static memory board_memory = {board_cells, 4, BOARD_SECTOR, BOARD_SECTORS};
static uint32_t board_seed = 1;

static inline int32_t board_noise(void *context, uint8_t *sample) {
  (void)context;
  board_seed ^= board_seed << 13;
  board_seed ^= board_seed >> 17;
  board_seed ^= board_seed << 5;
  *sample = (uint8_t)(board_seed >> 8);
  return 0;
}

static inline int32_t board_chip_hmac(void *context, const uint8_t *message, size_t length, uint8_t *tag) {
  static const uint8_t chip_key[32] = {0xee};
  (void)context;
  return kf_hmac_sha256(chip_key, message, length, tag);
}

static const kf_hooks board_hooks = {&board_memory, board_noise, memory_read, memory_program, memory_erase, board_chip_hmac, NULL, NULL};
/* The device's id is DEVICE of the harness. */
static const kf_board board_facts = {{0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1, 0xd1},
                                     "a test", 4, BOARD_SECTOR, BOARD_SECTORS, 4000, 30, KF_ALPHABET_OCTET, KF_NOISE_PHYSICAL_ON,
                                     KF_MEDIUM_RAW, KF_TAGS_CHECKSUM};

#endif
